//! The merged axis is not the product.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

axes! {
    Width = 65;
}

pub fn merge(x: Tensor![Batch, Heads, HeadDim]) -> Tensor![Batch, Width] {
    rearrange!(x[b h d] => [b (h d) as Width])
}
