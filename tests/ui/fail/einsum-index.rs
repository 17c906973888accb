//! Indices have no products.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch] {
    einsum!(ids[b t] => [b])
}
