//! A field without a default.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Custom(Tensor![Hidden]);

#[neural_module]
pub struct Net {
    weight: Param![Hidden],
    #[skip]
    custom: Custom,
}
