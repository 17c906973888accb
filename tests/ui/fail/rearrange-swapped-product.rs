//! The product in the other order is another axis.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn merge(x: Tensor![Batch, Heads, HeadDim]) -> Tensor![Batch, Heads * HeadDim] {
    rearrange!(x[b h d] => [b (d h)])
}
