//! New axes repeat the values.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Time, Hidden, 3] {
    rearrange!(x[b h] => [b Time h 3])
}
pub fn inferred(x: Tensor![Hidden]) -> Tensor![Batch, Hidden] {
    rearrange!(x[h] => [b h])
}
pub fn tiled(x: Tensor![Hidden]) -> Tensor![4 * Hidden] {
    rearrange!(x[h] => [(4 h)])
}
