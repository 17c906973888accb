//! A layer that is no module, as a field.

use mobilis::nn::*;
use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Vocab = 256;
    Hidden = 64;
    Ffn = 256;
    Heads = 4;
    KvHeads = 2;
    Groups = 2;
    HeadDim = 16;
}

pub struct Scale(Param![Hidden]);

#[neural_module]
pub struct Net {
    linear: Linear<Hidden, Hidden>,
    scale: Scale,
}
