//! Splitting and merging heads.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn split(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Heads, Time, HeadDim] {
    rearrange!(x[b t (h d)] => [b h t d])
}
pub fn merge(x: Tensor![Batch, Heads, Time, HeadDim]) -> Tensor![Batch, Time, Hidden] {
    rearrange!(x[b h t d] => [b t (h d) as Hidden])
}
pub fn product(x: Tensor![Batch, Heads, Time, HeadDim]) -> Tensor![Batch, Time, Heads * HeadDim] {
    rearrange!(x[b h t d] => [b t (h d)])
}
pub fn named(x: Tensor![Batch, Time, Hidden]) {
    let y = rearrange!(x[b t (Heads HeadDim) as Hidden] => [b t Heads HeadDim]);
    let _: Tensor![Batch, Time, Heads, HeadDim] = y;
}
