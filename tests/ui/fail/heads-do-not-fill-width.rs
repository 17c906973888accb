//! Axes of the attention are given in another order.

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
pub struct Block {
    attn: SelfAttention<Heads, HeadDim, Hidden>,
}

#[neural_module]
impl Block {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        x + self.attn.forward(x)
    }
}
