//! Appending takes keys and values.

use mobilis::nn::*;
use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Vocab = 256;
    Hidden = 64;
    Ffn = 256;
    Heads = 4;
    KvHeads = 2;
    Groups = 2;
    HeadDim = 16;
}

pub fn f(
    cache: KvCache<Batch, Past, Heads, HeadDim>,
    k: Tensor![Batch, Time, Heads, HeadDim],
) -> KvCache<Batch, Sum<Past, Time>, Heads, HeadDim> {
    cache.append(k)
}
