//! A field that is no parameter, module or number.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

#[derive(Default)]
pub struct Settings;

#[neural_module]
pub struct Net {
    weight: Param![Hidden],
    settings: Settings,
}
