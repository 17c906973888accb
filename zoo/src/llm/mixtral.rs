//! Mixtral: Mistral's attention, and eight experts for each layer of which two are chosen.
//!
//! Jiang et al. 2024 (<https://arxiv.org/abs/2401.04088>). As Hugging Face's `modeling_mixtral.py`;
//! checkpoints call the layer of experts `block_sparse_moe` and its matrices `w1` (gate), `w2` (down)
//! and `w3` (up).

use super::Context;
use super::block::{Decoder, Layer, Stream};
use super::config::{Config, ConfigError};
use super::moe::{self, Expert, SparseMlp};
use mobilis_runtime::nn::{AttentionOptions, GroupedSelfAttention, Linear, RmsNorm};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Mixtral may choose.
    pub trait MixtralAxes {
        /// Tokens.
        Vocab,
        /// The width of the stream.
        Hidden,
        /// Heads of keys and values.
        KvHeads,
        /// Heads of queries for each of them.
        Groups,
        /// Features of a head.
        HeadDim,
        /// Experts of a layer.
        Experts,
        /// Experts that are chosen for a token.
        Chosen,
        /// The width between an expert's products.
        Ffn,
    }
    /// A Mixtral of sizes from a `config.json`.
    pub struct AnyMixtral: MixtralAxes;
}

/// An expert under Mixtral's names.
#[neural_module]
pub struct MixtralExpert<H: Axis, F: Axis> {
    /// The gate's layer, `[F, H]`.
    #[default(Linear::default().no_bias())]
    pub w1: Linear<H, F>,
    /// The layer back, `[H, F]`.
    #[default(Linear::default().no_bias())]
    pub w2: Linear<F, H>,
    /// What the gate multiplies, `[F, H]`.
    #[default(Linear::default().no_bias())]
    pub w3: Linear<H, F>,
}

impl<H: Axis, F: Axis> Expert<H, F> for MixtralExpert<H, F> {
    fn gate(&self) -> &Linear<H, F> {
        &self.w1
    }
    fn up(&self) -> &Linear<H, F> {
        &self.w3
    }
    fn down(&self) -> &Linear<F, H> {
        &self.w2
    }
}

/// Mixtral's attention.
pub type Attention<A> = GroupedSelfAttention<
    <A as MixtralAxes>::Hidden,
    <A as MixtralAxes>::KvHeads,
    <A as MixtralAxes>::Groups,
    <A as MixtralAxes>::HeadDim,
>;
/// Mixtral's layer of experts; none is shared.
pub type Moe<A> = SparseMlp<
    <A as MixtralAxes>::Hidden,
    <A as MixtralAxes>::Experts,
    <A as MixtralAxes>::Chosen,
    <A as MixtralAxes>::Ffn,
    <A as MixtralAxes>::Ffn,
    MixtralExpert<<A as MixtralAxes>::Hidden, <A as MixtralAxes>::Ffn>,
>;
/// The language model.
pub type Mixtral<A> = Decoder<<A as MixtralAxes>::Vocab, <A as MixtralAxes>::Hidden, MixtralBlock<A>>;

/// One layer: attention and experts, each behind a norm and beside a residual.
#[neural_module(no_default)]
pub struct MixtralBlock<A: MixtralAxes> {
    /// Attention.
    pub self_attn: Attention<A>,
    /// The experts.
    pub block_sparse_moe: Moe<A>,
    /// The norm before attention.
    pub input_layernorm: RmsNorm<A::Hidden>,
    /// The norm before the experts.
    pub post_attention_layernorm: RmsNorm<A::Hidden>,
}

#[neural_module]
impl<A: MixtralAxes> MixtralBlock<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        let x = x + self.self_attn.apply(self.input_layernorm.forward(x), cx);
        x + self.block_sparse_moe.apply(self.post_attention_layernorm.forward(x), cx)
    }
}

impl<A: MixtralAxes> Layer<A::Hidden> for MixtralBlock<A> {
    fn window(&self) -> Option<u64> {
        Layer::window(&self.self_attn)
    }

    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// The setting of the number of experts, in its spellings.
pub const EXPERTS: [&str; 2] = ["num_local_experts", "num_experts"];

/// The sizes that a configuration gives to a Mixtral's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: MixtralAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let heads = config.heads()?;
    let (experts, chosen) = moe::experts(config, &EXPERTS)?;
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::KvHeads>(heads.kv)
        .with::<A::Groups>(heads.groups)
        .with::<A::HeadDim>(heads.dim)
        .with::<A::Experts>(experts)
        .with::<A::Chosen>(chosen)
        .with::<A::Ffn>(config.size("intermediate_size")?))
}

/// The sliding window of all layers, where they have one.
///
/// # Errors
/// Another kind of value.
fn window(config: &Config) -> Result<Option<u64>, ConfigError> {
    Ok(config.count("sliding_window")?.filter(|w| *w > 0).map(|w| w as u64))
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn mixtral<A: MixtralAxes>(config: &Config) -> Result<Mixtral<A>, ConfigError> {
    let eps = config.number("rms_norm_eps", 1e-5)?;
    let (experts, _) = moe::experts(config, &EXPERTS)?;
    let activation = config.activation("hidden_act", "silu")?;
    let rope = Some(config.rotary(None)?);
    let options = AttentionOptions { causal: true, rope, window: window(config)?, ..AttentionOptions::default() };
    let layer = || {
        let all = (0..experts).map(|_| MixtralExpert::default()).collect();
        MixtralBlock {
            self_attn: Attention::<A>::default().with(options.clone()),
            block_sparse_moe: SparseMlp::new(all, activation, true),
            input_layernorm: RmsNorm::default().eps(eps),
            post_attention_layernorm: RmsNorm::default().eps(eps),
        }
    };
    let layers = (0..config.layers()?).map(|_| layer()).collect();
    Ok(Decoder::new(layers, eps, config.flag("tie_word_embeddings", false)?))
}
