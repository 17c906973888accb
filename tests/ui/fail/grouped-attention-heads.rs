//! Key-value heads and groups of a layer exchanged, seen at its cache.

use mobilis::nn::*;
use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    KvHeads = 2;
    Groups = 4;
    HeadDim = 8;
}

type Attention = GroupedSelfAttention<Hidden, Groups, KvHeads, HeadDim>;

pub fn f(attn: &Attention, x: Tensor![Batch, Time, Hidden], cache: KvCache<Batch, Past, KvHeads, HeadDim>) -> Tensor![Batch, Time, Hidden] {
    attn.step(x, cache).0
}
