//! Smaller shapes join larger ones.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden], bias: Tensor![Hidden], scale: Tensor![]) -> Tensor![Batch, Time, Hidden] {
    (x + bias) * scale
}
