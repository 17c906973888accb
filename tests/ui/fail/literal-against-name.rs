//! A literal axis is not a named axis of that size.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, 64]) -> Tensor![Batch, Hidden] {
    x
}
