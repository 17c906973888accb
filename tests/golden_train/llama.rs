//! Llama as Hugging Face's `LlamaForCausalLM` has it: grouped queries, RMS norms, SwiGLU, rotary
//! embedding with llama3's frequencies, an own head. The fields have the checkpoint's names.

use mobilis::nn::{Embedding, GroupedSelfAttention, Linear, RmsNorm, Rotary, SwiGlu};
use mobilis::ops::rope::Scaling;
use mobilis::prelude::*;

axes! {
    /// Sequences.
    pub Batch;
    /// Positions.
    pub Time;
    pub Vocab = 320;
    pub Hidden = 64;
    pub Ffn = 112;
    pub KvHeads = 2;
    pub Groups = 2;
    pub HeadDim = 16;
}

fn rotary() -> Rotary {
    let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 };
    Rotary { theta: 10000.0, scaling, ..Rotary::default() }
}

/// One layer.
#[neural_module]
pub struct Layer {
    #[default(GroupedSelfAttention::default().causal().rope(rotary()))]
    self_attn: GroupedSelfAttention<Hidden, KvHeads, Groups, HeadDim>,
    mlp: SwiGlu<Hidden, Ffn>,
    #[default(RmsNorm::default().eps(1e-5))]
    input_layernorm: RmsNorm<Hidden>,
    #[default(RmsNorm::default().eps(1e-5))]
    post_attention_layernorm: RmsNorm<Hidden>,
}

#[neural_module]
impl Layer {
    /// Attention and feed-forward, each behind a norm and beside a residual.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.self_attn.forward(self.input_layernorm.forward(x));
        x + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

/// Everything but the head.
#[neural_module]
pub struct Decoder {
    embed_tokens: Embedding<Vocab, Hidden>,
    layers: [Layer; 2],
    #[default(RmsNorm::default().eps(1e-5))]
    norm: RmsNorm<Hidden>,
}

#[neural_module]
impl Decoder {
    /// The stream after the last norm.
    pub fn forward(&self, ids: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Hidden] {
        let x = self.layers.iter().fold(self.embed_tokens.forward(ids), |x, layer| layer.forward(x));
        self.norm.forward(x)
    }
}

/// The language model.
#[neural_module]
pub struct Llama {
    model: Decoder,
    #[default(Linear::default().no_bias())]
    lm_head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Llama {
    /// The mean cross-entropy of every position against its label; -100 is left out.
    pub fn loss(&self, ids: Tensor![Batch, Time; Index], labels: Tensor![Batch, Time; Index]) -> Tensor![] {
        self.lm_head.forward(self.model.forward(ids)).cross_entropy(labels)
    }
}
