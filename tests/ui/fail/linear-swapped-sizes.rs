//! Input and output of a layer exchanged.

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

#[neural_module]
pub struct FeedForward {
    up: Linear<Ffn, Hidden>,
    down: Linear<Ffn, Hidden>,
}

#[neural_module]
impl FeedForward {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        self.down.forward(self.up.forward(x).silu())
    }
}
