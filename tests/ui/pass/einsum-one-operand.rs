//! Sums, diagonals, transposes, names dropped.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn sum(x: Tensor![Batch, Time]) -> Tensor![Batch] {
    einsum!(x[b _] => [b])
}
pub fn all(x: Tensor![Batch, Time]) -> Tensor![] {
    einsum!(x[_ _] => [])
}
pub fn trace(x: Tensor![Batch, Hidden, Hidden]) -> Tensor![Batch] {
    einsum!(x[b i i] => [b])
}
pub fn diagonal(x: Tensor![Batch, Hidden, Hidden]) -> Tensor![Hidden, Batch] {
    einsum!(x[b i i] => [i b])
}
pub fn scalar(x: Tensor![]) -> Tensor![] {
    einsum!(x[] => [])
}
