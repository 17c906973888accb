//! Grouped-query attention: the groups share keys.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Source;
    KvHeads = 2;
    Groups = 4;
    HeadDim = 16;
}

pub fn scores(
    q: Tensor![Batch, Time, KvHeads, Groups, HeadDim],
    k: Tensor![Batch, Source, KvHeads, HeadDim],
) -> Tensor![Batch, KvHeads, Groups, Time, Source] {
    einsum!(q[b t h g d] * k[b s h d] => [b h g t s])
}
