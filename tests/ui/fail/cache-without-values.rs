//! The keys were appended to the cache, the values were not.

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

pub struct Cache {
    keys: Tensor![Batch, Past, Heads, HeadDim],
    values: Tensor![Batch, Past, Heads, HeadDim],
}

pub fn step(
    cache: Cache,
    q: Tensor![Batch, Time, Heads, HeadDim],
    k: Tensor![Batch, Time, Heads, HeadDim],
    v: Tensor![Batch, Time, Heads, HeadDim],
) -> Tensor![Batch, Time, Heads, HeadDim] {
    let keys = cache.keys.concat(Past, k, Time);
    let _ = v;
    attention(q, keys, cache.values).causal().output()
}
