//! Tuple structs, unit structs, generics with conditions.

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
pub struct Head(Param![Hidden], pub Dense<Hidden, Ffn>);

#[neural_module]
pub struct Relu;

#[neural_module]
pub struct Stack<M, const N: usize>([M; N])
where
    M: Module + Default;

#[neural_module(no_default)]
pub struct Custom {
    weight: Param![Hidden],
}

impl Custom {
    pub fn new(init: mobilis::module::init::Init) -> Self {
        Custom { weight: Param::new(init) }
    }
}

pub fn make() -> (Head, Relu, Stack<Dense<Hidden, Hidden>, 3>) {
    Default::default()
}
