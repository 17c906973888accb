//! A misspelled initializer.

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
    #[init(norml(0.02))]
    weight: Param![Hidden],
}
