//! GPT-2 (`GPT2LMHeadModel`), and all that have its form: DistilGPT-2, DialoGPT.
//!
//! Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". As Hugging Face's
//! `modeling_gpt2.py`. A block of its own: layer norms with biases before attention and the
//! feed-forward layer, learned positions instead of rotation, one projection for queries, keys and
//! values, a feed-forward layer without gate, and weights that are stored `[in, out]`
//! (`Conv1D`). The head is the embedding's table.

use super::block::{Layer, Stream};
use super::config::{Config, ConfigError};
use super::{Batch, CausalLm, Context, Ids, Time};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::nn::{Activation, AttentionOptions, Embedding, LayerNorm, Linear};
use mobilis_runtime::ops::contraction::einsum;
use mobilis_runtime::ops::slice::slice;
use mobilis_runtime::prelude::*;
use mobilis_runtime::{Const, Prod};

axes! {
    /// What a GPT-2 may choose.
    pub trait Gpt2Axes {
        /// Tokens.
        Vocab,
        /// The longest text.
        Positions,
        /// The width of the stream.
        Hidden,
        /// Heads of attention.
        Heads,
        /// Features of a head.
        HeadDim,
        /// The width between the feed-forward products.
        Ffn,
    }
    /// A GPT-2 of sizes from a `config.json`.
    pub struct AnyGpt2: Gpt2Axes;
}

/// A linear layer whose weight is stored `[I, O]`: `x W + b`.
#[neural_module]
pub struct Conv1d<I: Axis, O: Axis> {
    /// `[I, O]`
    #[init(normal(0.02))]
    pub weight: Param![I, O],
    /// `[O]`
    pub bias: Param![O],
}

#[neural_module]
impl<I: Axis, O: Axis> Conv1d<I, O> {
    /// `[Batch, Time, I]` to `[Batch, Time, O]`.
    pub fn forward(&self, x: Stream<I>) -> Stream<O> {
        let y: Stream<O> = Tensor::from_raw(einsum(&[x.raw(), self.weight.get().raw()], &[b"bti", b"io"], b"bto"));
        y + self.bias.get()
    }
}

/// Queries, keys and values of all heads side by side.
type Three<N, D> = Prod<Const<3>, Prod<N, D>>;

/// GPT-2's attention.
#[neural_module]
pub struct Attention<H: Axis, N: Axis, D: Axis> {
    /// `[H, 3 * N * D]`: queries, keys, values.
    pub c_attn: Conv1d<H, Three<N, D>>,
    /// `[N * D, H]`
    pub c_proj: Conv1d<Prod<N, D>, H>,
    /// The settings.
    #[hyper]
    pub options: AttentionOptions,
}

#[neural_module]
impl<H: Axis, N: Axis, D: Axis> Attention<H, N, D> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        let all: Tensor<(Batch, Time, Const<3>, N, D)> = self.c_attn.forward(x).reshape();
        let part = |i: u64| -> Tensor<(Batch, Time, Const<1>, N, D)> {
            Tensor::from_raw(slice(all.raw(), 2, Extent::constant(i), 1, <Const<1>>::dim()))
        };
        let q: Tensor<(Batch, Time, N, Const<1>, D)> = part(0).reshape();
        let k: Tensor<(Batch, Time, N, D)> = part(1).reshape();
        let v: Tensor<(Batch, Time, N, D)> = part(2).reshape();
        let found = cx.attend(q, k, v, &self.options);
        self.c_proj.forward(found.reshape::<(Batch, Time, Prod<N, D>)>())
    }
}

/// GPT-2's feed-forward layer.
#[neural_module]
pub struct Mlp<H: Axis, F: Axis> {
    /// `[H, F]`
    pub c_fc: Conv1d<H, F>,
    /// `[F, H]`
    pub c_proj: Conv1d<F, H>,
    /// What is between.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<H: Axis, F: Axis> Mlp<H, F> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>) -> Stream<H> {
        let inner: Stream<F> = Tensor::from_raw(self.activation.apply(self.c_fc.forward(x).raw()));
        self.c_proj.forward(inner)
    }
}

/// One layer of a GPT-2.
#[neural_module]
pub struct Gpt2Block<A: Gpt2Axes> {
    /// The norm before attention.
    pub ln_1: LayerNorm<A::Hidden>,
    /// Attention.
    pub attn: Attention<A::Hidden, A::Heads, A::HeadDim>,
    /// The norm before the feed-forward layer.
    pub ln_2: LayerNorm<A::Hidden>,
    /// The feed-forward layer.
    pub mlp: Mlp<A::Hidden, A::Ffn>,
}

#[neural_module]
impl<A: Gpt2Axes> Gpt2Block<A> {
    /// Attention and feed-forward, each behind a norm and beside a residual.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        let x = x + self.attn.forward(self.ln_1.forward(x), cx);
        x + self.mlp.forward(self.ln_2.forward(x))
    }
}

impl<A: Gpt2Axes> Layer<A::Hidden> for Gpt2Block<A> {
    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// Embeddings, layers, and a norm.
#[neural_module(no_default)]
pub struct Transformer<A: Gpt2Axes> {
    /// `[Vocab, Hidden]`
    pub wte: Embedding<A::Vocab, A::Hidden>,
    /// `[Positions, Hidden]`
    pub wpe: Embedding<A::Positions, A::Hidden>,
    /// The layers, in order.
    pub h: Vec<Gpt2Block<A>>,
    /// The norm after the last layer.
    pub ln_f: LayerNorm<A::Hidden>,
}

#[neural_module]
impl<A: Gpt2Axes> Transformer<A> {
    /// The stream after the last norm.
    pub fn forward(&self, ids: Ids, cx: &Context) -> Stream<A::Hidden> {
        let mut x = self.wte.forward(ids) + self.wpe.forward(cx.positions());
        for (i, layer) in self.h.iter().enumerate() {
            x = layer.apply(cx.note(x), &cx.layer(i));
        }
        cx.note(self.ln_f.forward(x))
    }
}

/// The language model.
#[neural_module(no_default)]
pub struct Gpt2<A: Gpt2Axes> {
    /// All but the head.
    pub transformer: Transformer<A>,
    /// `[Vocab, Hidden]`; the embedding's table where it is tied.
    pub lm_head: Option<Linear<A::Hidden, A::Vocab>>,
}

impl<A: Gpt2Axes + 'static> CausalLm for Gpt2<A> {
    type Hidden = A::Hidden;
    type Vocab = A::Vocab;

    fn stream(&self, ids: Ids, cx: &Context) -> Stream<A::Hidden> {
        self.transformer.forward(ids, cx)
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Vocab)> {
        match &self.lm_head {
            Some(head) => head.forward(x),
            None => self.transformer.wte.attend(x),
        }
    }
}

/// The sizes that a configuration gives to a GPT-2's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: Gpt2Axes>(config: &Config) -> Result<Sizes, ConfigError> {
    let hidden = config.size_of(&["n_embd", "hidden_size"])?;
    let heads = config.size_of(&["n_head", "num_attention_heads"])?;
    if !hidden.is_multiple_of(heads) {
        return Err(config.wrong("n_embd", format!("a multiple of the {heads} attention heads")));
    }
    let ffn = if config.get("n_inner").is_some() { config.size("n_inner")? } else { 4 * hidden };
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Positions>(config.size_of(&["n_positions", "max_position_embeddings"])?)
        .with::<A::Hidden>(hidden)
        .with::<A::Heads>(heads)
        .with::<A::HeadDim>(hidden / heads)
        .with::<A::Ffn>(ffn))
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn gpt2<A: Gpt2Axes>(config: &Config) -> Result<Gpt2<A>, ConfigError> {
    let norm = || Ok(LayerNorm::default().eps(config.number("layer_norm_epsilon", 1e-5)?));
    let activation = config.activation("activation_function", "gelu_new")?;
    let features = config.size_of(&["n_embd", "hidden_size"])? / config.size_of(&["n_head", "num_attention_heads"])?;
    let by_width = if config.flag("scale_attn_weights", true)? { (features as f64).powf(-0.5) } else { 1.0 };
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |i: usize| {
        let scale = if by_layer { by_width / (i + 1) as f64 } else { by_width };
        let options = AttentionOptions { causal: true, scale: Some(scale), ..AttentionOptions::default() };
        let attn = Attention { options, ..Default::default() };
        Ok(Gpt2Block { ln_1: norm()?, attn, ln_2: norm()?, mlp: Mlp { activation, ..Default::default() } })
    };
    let h = (0..config.layers()?).map(layer).collect::<Result<_, ConfigError>>()?;
    let tied = config.flag("tie_word_embeddings", true)?;
    Ok(Gpt2 {
        transformer: Transformer { wte: Embedding::default(), wpe: Embedding::default(), h, ln_f: norm()? },
        lm_head: (!tied).then(|| Linear::default().no_bias()),
    })
}
