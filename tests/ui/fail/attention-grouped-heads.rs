//! Fewer key-value heads than query heads.

use mobilis::prelude::*;

use mobilis::ops::attention::attention;

axes! {
    Batch;
    Past;
    Time;
    Heads = 8;
    KvHeads = 2;
    HeadDim = 16;
}

pub fn f(
    q: Tensor![Batch, Time, Heads, HeadDim],
    k: Tensor![Batch, Time, KvHeads, HeadDim],
    v: Tensor![Batch, Time, KvHeads, HeadDim],
) -> Tensor![Batch, Time, Heads, HeadDim] {
    attention(q, k, v).causal().output()
}
