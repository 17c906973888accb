//! What the fields of a module may be.

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

#[derive(Debug, Default)]
pub enum Form {
    #[default]
    Round,
}

#[derive(Default)]
pub struct Cache;

#[neural_module]
pub struct Net {
    /// A parameter.
    #[init(normal(0.02))]
    #[name("transform.weight")]
    weight: Param![Hidden, Ffn],
    mean: Buffer![Hidden],
    one: Dense<Hidden, Ffn>,
    pair: (Dense<Hidden, Ffn>, Dense<Ffn, Hidden>),
    array: [Dense<Hidden, Hidden>; 40],
    #[default(repeat(12))]
    list: Vec<Dense<Hidden, Hidden>>,
    maybe: Option<Dense<Hidden, Ffn>>,
    boxed: Box<Dense<Hidden, Ffn>>,
    #[default(0.1)]
    rate: f32,
    #[hyper]
    form: Form,
    #[skip]
    cache: Cache,
    phantom: std::marker::PhantomData<Cache>,
    #[cfg(any())]
    absent: Missing,
}

pub fn make() -> Net {
    Net::default()
}
