//! Llama as Hugging Face's `LlamaForCausalLM` has it: grouped queries, RMS norms, SwiGLU, rotary
//! embedding with llama3's frequencies, an own head.

use mobilis::ops::attention::grouped_attention;
use mobilis::ops::rope::{self, Pairing, Rotary, Scaling};
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
    pub Keys = KvHeads * HeadDim;
    pub Queries = Keys * Groups;
    pub Layers = 2;
}

/// Queries, keys and values of one layer, and the way back.
#[neural_module]
pub struct Attention {
    #[name("q_proj.weight")]
    q: Param![Queries, Hidden],
    #[name("k_proj.weight")]
    k: Param![Keys, Hidden],
    #[name("v_proj.weight")]
    v: Param![Keys, Hidden],
    #[name("o_proj.weight")]
    o: Param![Hidden, Queries],
}

#[neural_module]
impl Attention {
    /// Causal attention.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let q = einsum!(x[b t i] * self.q.get()[o i] => [b t o]);
        let k = einsum!(x[b t i] * self.k.get()[o i] => [b t o]);
        let v = einsum!(x[b t i] * self.v.get()[o i] => [b t o]);
        let q: Tensor![Batch, Time, KvHeads, Groups, HeadDim] = rearrange!(q[b t (k g d)] => [b t k g d]);
        let k: Tensor![Batch, Time, KvHeads, HeadDim] = rearrange!(k[b t (k d)] => [b t k d]);
        let v: Tensor![Batch, Time, KvHeads, HeadDim] = rearrange!(v[b t (k d)] => [b t k d]);
        let y = grouped_attention(rotated(q), rotated(k), v).causal().output();
        let y: Tensor![Batch, Time, Queries] = rearrange!(y[b t k g d] => [b t (k g d) as Queries]);
        einsum!(y[b t i] * self.o.get()[o i] => [b t o])
    }
}

/// Llama 3's rotary embedding; dimension 1 is time, the last one the features of a head.
fn rotated<S: Shape>(x: Tensor<S>) -> Tensor<S> {
    let scaling = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 };
    let rotary = Rotary { theta: 10000.0, scaling, ..Rotary::default() };
    let tables = rope::tables(&rotary, rope::positions(x.raw(), 1), &HeadDim::extent());
    Tensor::from_raw(rope::rope(x.raw(), tables, Pairing::HalfSplit, &[1]))
}

/// The gated feed-forward layer.
#[neural_module]
pub struct Mlp {
    #[name("gate_proj.weight")]
    gate: Param![Ffn, Hidden],
    #[name("up_proj.weight")]
    up: Param![Ffn, Hidden],
    #[name("down_proj.weight")]
    down: Param![Hidden, Ffn],
}

#[neural_module]
impl Mlp {
    /// `down(silu(gate(x)) * up(x))`
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let gate = einsum!(x[b t i] * self.gate.get()[o i] => [b t o]);
        let up = einsum!(x[b t i] * self.up.get()[o i] => [b t o]);
        let gated = gate.silu() * up;
        einsum!(gated[b t i] * self.down.get()[o i] => [b t o])
    }
}

/// One layer.
#[neural_module]
pub struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    #[name("input_layernorm.weight")]
    norm1: Param![Hidden],
    #[name("post_attention_layernorm.weight")]
    norm2: Param![Hidden],
}

#[neural_module]
impl Layer {
    /// Attention and feed-forward, each behind a norm and beside a residual.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.self_attn.forward(x.rms_norm(Some(self.norm1.get()), 1e-5));
        x + self.mlp.forward(x.rms_norm(Some(self.norm2.get()), 1e-5))
    }
}

/// The language model.
#[neural_module]
pub struct Llama {
    #[name("model.embed_tokens.weight")]
    embed: Param![Vocab, Hidden],
    #[name("model.layers")]
    layers: [Layer; 2],
    #[name("model.norm.weight")]
    norm: Param![Hidden],
    #[name("lm_head.weight")]
    head: Param![Vocab, Hidden],
}

#[neural_module]
impl Llama {
    /// The mean cross-entropy of every position against its label; -100 is left out.
    pub fn loss(&self, ids: Tensor![Batch, Time; Index], labels: Tensor![Batch, Time; Index]) -> Tensor![] {
        let mut x = ids.embedding(self.embed.get());
        for layer in &self.layers {
            x = layer.forward(x);
        }
        let x = x.rms_norm(Some(self.norm.get()), 1e-5);
        einsum!(x[b t h] * self.head.get()[v h] => [b t v]).cross_entropy(labels)
    }
}
