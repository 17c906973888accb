//! Several entry points, and methods that are none.

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
    up: Dense<Hidden, Ffn>,
    down: Dense<Ffn, Hidden>,
}

#[neural_module]
impl Net {
    pub fn forward(&self, mut x: Tensor![Batch, Time, Hidden], scale: f64) -> Tensor![Batch, Time, Hidden] {
        if scale == 0.0 {
            return x;
        }
        x = self.down.forward(self.encode(x));
        self.helper(x)
    }

    pub fn encode(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Ffn] {
        self.up.forward(x)
    }

    pub fn try_encode(&self, x: Option<Tensor![Batch, Time, Hidden]>) -> Result<Tensor![Batch, Time, Ffn], String> {
        Ok(self.up.forward(x.ok_or("nothing")?))
    }

    fn helper(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        x
    }

    pub fn width(&self) -> u64 {
        Hidden::SIZE.unwrap_or(0)
    }

    pub fn new() -> Self {
        Self::default()
    }
}

pub fn f(net: &Net, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    net.call((x, 0.5))
}
