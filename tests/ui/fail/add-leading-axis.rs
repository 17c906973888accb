//! Broadcasting joins the last axes, not the first.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden], scale: Tensor![Batch]) -> Tensor![Batch, Time, Hidden] {
    x * scale
}
