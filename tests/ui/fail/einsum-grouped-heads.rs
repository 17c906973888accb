//! Query heads where key-value heads are meant.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Source;
    Heads = 8;
    KvHeads = 2;
    HeadDim = 16;
}

pub fn scores(
    q: Tensor![Batch, Time, Heads, HeadDim],
    k: Tensor![Batch, Source, KvHeads, HeadDim],
) -> Tensor![Batch, Heads, Time, Source] {
    einsum!(q[b t h d] * k[b s h d] => [b h t s])
}
