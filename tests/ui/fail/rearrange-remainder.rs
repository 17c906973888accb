//! Heads that do not divide the width.

use mobilis::prelude::*;

axes! {
    Batch;
    Hidden = 130;
    Heads = 4;
    HeadDim = 32;
}

pub fn split(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Heads, HeadDim] {
    rearrange!(x[b (h d)] => [b h d])
}
