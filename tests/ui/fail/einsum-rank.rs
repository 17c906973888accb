//! A pattern with too few axes.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden], w: Tensor![Ffn, Hidden]) -> Tensor![Batch, Ffn] {
    einsum!(x[b i] * w[o i] => [b o])
}
