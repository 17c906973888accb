//! The contracted axes differ.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Hidden], w: Tensor![Hidden, Ffn]) -> Tensor![Batch, Hidden] {
    einsum!(x[b i] * w[o i] => [b o])
}
