//! Tuples of modules.

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

pub type Mlp = (Dense<Hidden, Ffn>, Dense<Ffn, Ffn>, Dense<Ffn, Hidden>);

pub fn f(net: &Mlp, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    net.forward(x) + net.call(x)
}

pub fn boxed(net: &((Dense<Hidden, Ffn>,), Dense<Ffn, Hidden>), x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    net.forward(x)
}
