//! Products belong to rearrange.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Heads] {
    einsum!(x[b (h d)] => [b h])
}
