//! A storage type is not an element.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch; f32], ids: Tensor![Batch; i64]) {}
