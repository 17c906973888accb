//! GPT-2 as Hugging Face's `GPT2LMHeadModel` has it: learned positions, layer norms, fused
//! queries, keys and values, GELU's tanh form, weights stored `[in, out]`, a head tied to the
//! embedding.

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

/// A layer norm.
#[neural_module]
pub struct Norm {
    weight: Param![Hidden],
    bias: Param![Hidden],
}

#[neural_module]
impl Norm {
    /// The normalized value.
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        x.layer_norm(Some(self.weight.get()), Some(self.bias.get()), 1e-5)
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
    ln_1: Norm,
    attn: Attention,
    ln_2: Norm,
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

/// The language model.
#[neural_module]
pub struct Gpt2 {
    #[name("transformer.wte.weight")]
    wte: Param![Vocab, Hidden],
    #[name("transformer.wpe.weight")]
    wpe: Param![Positions, Hidden],
    #[name("transformer.h")]
    blocks: [Block; 2],
    #[name("transformer.ln_f")]
    norm: Norm,
}

#[neural_module]
impl Gpt2 {
    /// The mean cross-entropy of every position against its label; -100 is left out.
    pub fn loss(&self, ids: Tensor![Batch, Time; Index], labels: Tensor![Batch, Time; Index]) -> Tensor![] {
        let positions: Tensor![Time; Index] = Tensor::from_raw(rope::positions(ids.raw(), 1));
        let mut x = ids.embedding(self.wte.get()) + positions.embedding(self.wpe.get());
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = self.norm.forward(x);
        einsum!(x[b t h] * self.wte.get()[v h] => [b t v]).cross_entropy(labels)
    }
}
