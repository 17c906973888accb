//! Phi-3, 3.5 and 4 (`Phi3ForCausalLM`).
//!
//! Abdin et al. 2024 (<https://arxiv.org/abs/2404.14219>). As Hugging Face's `modeling_phi3.py`: a
//! Llama whose projections of queries, keys and values are one matrix (`qkv_proj`), as are those of
//! the gate and what it opens (`gate_up_proj`). Perhaps a part of each head is rotated
//! (`partial_rotary_factor`), and perhaps every layer has a sliding window.
//!
//! With long rope (Ding et al. 2024, <https://arxiv.org/abs/2402.13753>) a text of more than
//! `original_max_position_embeddings` positions is rotated by other angles than a shorter one, all of
//! it: a text that grows past the limit is read anew ([`Decoder::switch`]).

use super::block::{Block, Decoder, Layer, Stream};
use super::config::{Config, ConfigError};
use super::llama::{self, LlamaAxes};
use super::{Batch, Context, Time};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::nn::{Activation, AttentionOptions, Linear, Scaling};
use mobilis_runtime::ops::slice::slice;
use mobilis_runtime::prelude::*;
use mobilis_runtime::{Prod, Sum};
use serde_json::json;

/// Heads of queries.
type Queries<K, G> = Prod<K, G>;
/// Heads of queries, keys and values.
type AllHeads<K, G> = Sum<Sum<Queries<K, G>, K>, K>;

/// The part of an axis that begins at `start`, under an axis of its own.
fn part<S: Shape, T: Shape, A: Axis>(x: Tensor<S>, axis: usize, start: Extent) -> Tensor<T> {
    Tensor::from_raw(slice(x.raw(), axis, start, 1, A::dim()))
}

/// Self-attention with grouped queries whose projections are one matrix.
#[neural_module]
pub struct FusedAttention<H: Axis, K: Axis, G: Axis, D: Axis> {
    /// `[(K * G + 2 * K) * D, H]`: queries, keys, values.
    #[default(Linear::default().no_bias())]
    pub qkv_proj: Linear<H, Prod<AllHeads<K, G>, D>>,
    /// `[H, K * G * D]`
    #[default(Linear::default().no_bias())]
    pub o_proj: Linear<Prod<Queries<K, G>, D>, H>,
    /// The settings.
    #[hyper]
    pub options: AttentionOptions,
}

#[neural_module]
impl<H: Axis, K: Axis, G: Axis, D: Axis> FusedAttention<H, K, G, D> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        let all: Tensor<(Batch, Time, AllHeads<K, G>, D)> = self.qkv_proj.forward(x).reshape();
        let q: Tensor<(Batch, Time, Queries<K, G>, D)> = part::<_, _, Queries<K, G>>(all, 2, Extent::constant(0));
        let k: Tensor<(Batch, Time, K, D)> = part::<_, _, K>(all, 2, Queries::<K, G>::extent());
        let v: Tensor<(Batch, Time, K, D)> = part::<_, _, K>(all, 2, Sum::<Queries<K, G>, K>::extent());
        let q: Tensor<(Batch, Time, K, G, D)> = q.reshape();
        let (q, k) = self.options.rotate(q, k, cx.places());
        let found = cx.attend(q, k, v, &self.options);
        self.o_proj.forward(found.reshape::<(Batch, Time, Prod<Queries<K, G>, D>)>())
    }
}

impl<H: Axis, K: Axis, G: Axis, D: Axis> Layer<H> for FusedAttention<H, K, G, D> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        self.forward(x, cx)
    }

    fn window(&self) -> Option<u64> {
        self.options.window
    }
}

/// A gated feed-forward layer whose first two matrices are one.
#[neural_module]
pub struct FusedMlp<H: Axis, F: Axis> {
    /// `[2 * F, H]`: the gate, what it opens.
    #[default(Linear::default().no_bias())]
    pub gate_up_proj: Linear<H, Sum<F, F>>,
    /// `[H, F]`
    #[default(Linear::default().no_bias())]
    pub down_proj: Linear<F, H>,
    /// What the gate goes through.
    #[hyper]
    #[default(Activation::Silu)]
    pub activation: Activation,
}

#[neural_module]
impl<H: Axis, F: Axis> FusedMlp<H, F> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>) -> Stream<H> {
        let both = self.gate_up_proj.forward(x);
        let gate: Stream<F> = part::<_, _, F>(both, 2, Extent::constant(0));
        let up: Stream<F> = part::<_, _, F>(both, 2, F::extent());
        let gate: Stream<F> = Tensor::from_raw(self.activation.apply(gate.raw()));
        self.down_proj.forward(gate * up)
    }
}

impl<H: Axis, F: Axis> Layer<H> for FusedMlp<H, F> {
    fn apply(&self, x: Stream<H>, _: &Context) -> Stream<H> {
        self.forward(x)
    }
}

/// Phi-3's attention.
pub type Attention<A> = FusedAttention<
    <A as LlamaAxes>::Hidden,
    <A as LlamaAxes>::KvHeads,
    <A as LlamaAxes>::Groups,
    <A as LlamaAxes>::HeadDim,
>;
/// One layer of a Phi-3.
pub type Phi3Block<A> =
    Block<<A as LlamaAxes>::Hidden, Attention<A>, FusedMlp<<A as LlamaAxes>::Hidden, <A as LlamaAxes>::Ffn>>;
/// The language model.
pub type Phi3<A> = Decoder<<A as LlamaAxes>::Vocab, <A as LlamaAxes>::Hidden, Phi3Block<A>>;

/// The configuration with what transformers takes for settings that the file lacks.
pub fn phi3_config(config: Config) -> Config {
    config.with_defaults(json!({
        "original_max_position_embeddings": 4096, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    }))
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn phi3<A: LlamaAxes>(config: &Config) -> Result<Phi3<A>, ConfigError> {
    let rope = config.rotary(None)?;
    let window = config.count("sliding_window")?.filter(|w| *w > 0).map(|w| w as u64);
    let switch = match &rope.scaling {
        Scaling::LongRope { original, .. } => Some(*original as usize),
        _ => None,
    };
    let options = AttentionOptions { causal: true, rope: Some(rope), window, ..AttentionOptions::default() };
    let activation = config.activation("hidden_act", "silu")?;
    let eps = llama::eps(config)?;
    let mut phi3 = llama::decoder::<A, _>(config, |_| {
        let attention = Attention::<A> { options: options.clone(), ..Default::default() };
        Ok(Block::new(attention, FusedMlp { activation, ..Default::default() }, eps))
    })?;
    phi3.switch = switch;
    Ok(phi3)
}
