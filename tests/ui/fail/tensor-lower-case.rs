//! Axes in a tensor type are types.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![batch, head_dim]) {}
