//! The cache of the step before is passed on, not the new one.

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
    attn: &SelfAttention<Hidden, Heads, HeadDim>,
    x: Tensor![Batch, Time, Hidden],
    cache: KvCache<Batch, Past, Heads, HeadDim>,
) -> (Tensor![Batch, Time, Hidden], KvCache<Batch, Sum<Past, Time>, Heads, HeadDim>) {
    let (y, _) = attn.step(x, cache);
    (y, cache)
}
