//! A struct that is no axis.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Width;

pub fn f(x: Tensor![Batch, Width]) -> Tensor![Batch, Width] {
    x + x
}
