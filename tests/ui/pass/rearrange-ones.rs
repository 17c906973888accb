//! Axes of size one come and go.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn insert(x: Tensor![Batch, Time]) -> Tensor![Batch, 1, Time, 1] {
    rearrange!(x[b t] => [b 1 t 1])
}
pub fn remove(x: Tensor![1, Batch, 1]) -> Tensor![Batch] {
    rearrange!(x[1 b 1] => [b])
}
pub fn transpose(x: Tensor![Batch, Time; TokenId]) -> Tensor![Time, Batch; TokenId] {
    rearrange!(x[b t] => [t b])
}
