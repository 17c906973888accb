//! Pooling by reduction of a product.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn pool(x: Tensor![Batch, 2 * Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    reduce!(max: x[b (t 2) h] => [b t h])
}
pub fn keep(x: Tensor![Batch, Time]) -> Tensor![Batch, 1] {
    reduce!(sum: x[b t] => [b 1])
}
pub fn merged(x: Tensor![Batch, Time, Heads, HeadDim]) -> Tensor![Batch, Hidden] {
    reduce!(mean: x[b t h d] => [b (h d) as Hidden])
}
