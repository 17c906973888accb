//! One parameter under two names.

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
    embed: Dense<Hidden, Ffn>,
    #[tie(weight = embed.weight)]
    head: Dense<Hidden, Ffn>,
    #[tie(embed.weight)]
    third: Param![Ffn, Hidden],
}

pub fn make() -> Net {
    Net::default()
}
