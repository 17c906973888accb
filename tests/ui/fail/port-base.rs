//! Real numbers where tokens are meant.

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
pub struct Embed;

#[neural_module]
impl Embed {
    pub fn forward(&self, ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time; TokenId] {
        ids
    }
}

pub fn f(embed: &Embed, x: Tensor![Batch, Time]) -> Tensor![Batch, Time; TokenId] {
    embed.forward(x)
}
