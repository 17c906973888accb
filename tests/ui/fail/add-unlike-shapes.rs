//! Two widths are added.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden], y: Tensor![Batch, Time, Ffn]) -> Tensor![Batch, Time, Hidden] {
    x + y
}
