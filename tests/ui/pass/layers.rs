//! Layers of a transformer together.

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
    norm1: RmsNorm<Hidden>,
    #[default(SelfAttention::default().causal())]
    attn: SelfAttention<Hidden, Heads, HeadDim>,
    norm2: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Ffn>,
}

#[neural_module]
impl Block {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.norm1.forward(x));
        x + self.mlp.forward(self.norm2.forward(x))
    }
}

#[neural_module]
pub struct Model {
    embed: Embedding<Vocab, Hidden>,
    blocks: [Block; 2],
    norm: RmsNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    #[tie(weight = embed.weight)]
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Model {
    pub fn forward(&self, ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, Vocab; Logits] {
        let mut x = self.embed.forward(ids);
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.head.forward(self.norm.forward(x)).assume()
    }

    pub fn loss(&self, ids: Tensor![Batch, Time; TokenId], targets: Tensor![Batch, Time; TokenId]) -> Tensor![] {
        self.forward(ids).cross_entropy(targets)
    }
}

pub fn make() -> Model {
    Model::default()
}
