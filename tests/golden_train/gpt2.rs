//! GPT-2 as Hugging Face's `GPT2LMHeadModel` has it: learned positions, layer norms, fused
//! queries, keys and values, GELU's tanh form, weights stored `[in, out]`, a head tied to the
//! embedding.

use mobilis::nn::{Embedding, LayerNorm};
use mobilis::ops::attention::attention;
use mobilis::ops::rope;
use mobilis::prelude::*;

axes! {
    /// Sequences.
    pub Batch;
    /// Positions.
    pub Time;
    pub Vocab = 320;
    pub Positions = 96;
    pub Hidden = 64;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Fused = 3 * Hidden;
    pub Ffn = 4 * Hidden;
}

/// A linear layer whose weight is stored `[in, out]`.
#[neural_module]
pub struct Conv1d<I: Axis, O: Axis> {
    weight: Param![I, O],
    bias: Param![O],
}

#[neural_module]
impl<I: Axis, O: Axis> Conv1d<I, O> {
    /// `x W + b`
    pub fn forward(&self, x: Tensor![Batch, Time, I]) -> Tensor![Batch, Time, O] {
        einsum!(x[b t I] * self.weight.get()[I O] => [b t O]) + self.bias.get()
    }
}

/// Self-attention.
#[neural_module]
pub struct Attention {
    c_attn: Conv1d<Hidden, Fused>,
    c_proj: Conv1d<Hidden, Hidden>,
}

#[neural_module]
impl Attention {
    /// Causal attention.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let fused = self.c_attn.forward(x);
        let part = |k: usize| -> Tensor![Batch, Time, Heads, HeadDim] {
            let part = fused.slice(Fused, Hidden, k * 64);
            rearrange!(part[b t (h d)] => [b t h d])
        };
        let y = attention(part(0), part(1), part(2)).causal().output();
        self.c_proj.forward(rearrange!(y[b t h d] => [b t (h d) as Hidden]))
    }
}

/// The feed-forward layer.
#[neural_module]
pub struct Mlp {
    c_fc: Conv1d<Hidden, Ffn>,
    c_proj: Conv1d<Ffn, Hidden>,
}

#[neural_module]
impl Mlp {
    /// Two layers with `gelu_new` between them.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        self.c_proj.forward(self.c_fc.forward(x).gelu_tanh())
    }
}

/// One layer.
#[neural_module]
pub struct Block {
    ln_1: LayerNorm<Hidden>,
    attn: Attention,
    ln_2: LayerNorm<Hidden>,
    mlp: Mlp,
}

#[neural_module]
impl Block {
    /// Attention and feed-forward, each behind a norm and beside a residual.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        let x = x + self.attn.forward(self.ln_1.forward(x));
        x + self.mlp.forward(self.ln_2.forward(x))
    }
}

/// Everything but the head, which is the embedding.
#[neural_module]
pub struct Decoder {
    wte: Embedding<Vocab, Hidden>,
    wpe: Embedding<Positions, Hidden>,
    h: [Block; 2],
    ln_f: LayerNorm<Hidden>,
}

#[neural_module]
impl Decoder {
    /// The stream after the last norm.
    pub fn forward(&self, ids: Tensor![Batch, Time; Index]) -> Tensor![Batch, Time, Hidden] {
        let positions: Tensor![Time; Index] = Tensor::from_raw(rope::positions(ids.raw(), 1));
        let x = self.wte.forward(ids) + self.wpe.forward(positions);
        self.ln_f.forward(self.h.iter().fold(x, |x, block| block.forward(x)))
    }
}

/// The language model.
#[neural_module]
pub struct Gpt2 {
    transformer: Decoder,
}

#[neural_module]
impl Gpt2 {
    /// The mean cross-entropy of every position against its label; -100 is left out.
    pub fn loss(&self, ids: Tensor![Batch, Time; Index], labels: Tensor![Batch, Time; Index]) -> Tensor![] {
        self.transformer.wte.attend(self.transformer.forward(ids)).cross_entropy(labels)
    }
}
