//! Scores and their use.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

axes! { Source; }

pub fn attend(
    q: Tensor![Batch, Time, Heads, HeadDim],
    k: Tensor![Batch, Source, Heads, HeadDim],
    v: Tensor![Batch, Source, Heads, HeadDim],
) -> Tensor![Batch, Time, Heads, HeadDim] {
    let scores: Tensor![Batch, Heads, Time, Source] = einsum!(q[b t h d] * k[b s h d] => [b h t s]);
    einsum!(scores[b h t s] * v[b s h d] => [b t h d])
}
