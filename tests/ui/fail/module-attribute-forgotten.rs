//! The impl has the attribute, the struct does not.

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
    weight: Param![Hidden],
}

#[neural_module]
impl Net {
    pub fn forward(&self, x: Tensor![Batch, Hidden]) -> Tensor![Batch, Hidden] {
        x
    }
}
