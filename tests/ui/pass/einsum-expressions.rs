//! Operands are expressions.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Net {
    weights: Vec<Param![Ffn, Hidden]>,
}

impl Net {
    pub fn f(&self, x: Tensor![Batch, Hidden], y: Tensor![Batch, Hidden]) -> Tensor![Batch, Ffn] {
        einsum!((x + y)[b i] * self.weights[0].get()[o i] => [b o])
    }
    pub fn g(&self, x: Tensor![Batch, Hidden], y: Tensor![Batch, Hidden]) -> Tensor![Batch, Ffn] {
        einsum!(x * y[b i] * self.weights[1].get()[o i] => [b o])
    }
}
