//! Three operands, an outer product, literals.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn three(a: Tensor![Batch, Hidden], b: Tensor![Hidden, Ffn], c: Tensor![Ffn, 3]) -> Tensor![Batch, 3] {
    einsum!(a[n i] * b[i j] * c[j 3] => [n 3])
}
pub fn outer(a: Tensor![Batch], b: Tensor![Time]) -> Tensor![Time, Batch] {
    einsum!(a[b] * b[t] => [t b])
}
