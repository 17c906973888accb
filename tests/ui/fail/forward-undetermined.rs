//! A type that the input does not determine.

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
pub struct Net {
    weight: Param![Hidden],
}

#[neural_module]
impl Net {
    pub fn forward<O: Axis>(&self, x: Tensor![Batch, Hidden]) -> Tensor![Batch, O] {
        x.reshape()
    }
}
