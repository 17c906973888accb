//! forward takes &self.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

#[neural_module]
pub struct Dense<I: Axis, O: Axis> {
    pub weight: Param![O, I],
}

#[neural_module]
impl<I: Axis, O: Axis> Dense<I, O> {
    pub fn forward(&self, x: Tensor![Batch, Time, I]) -> Tensor![Batch, Time, O] {
        einsum!(x[b t i] * self.weight.get()[o i] => [b t o])
    }
}

#[neural_module]
pub struct Net {
    dense: Dense<Hidden, Hidden>,
}

#[neural_module]
impl Net {
    pub fn forward(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Hidden] {
        x
    }
}
