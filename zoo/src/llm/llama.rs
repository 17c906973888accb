//! Llama 1 to 3, and all that call themselves `LlamaForCausalLM`: SmolLM2, TinyLlama, Vicuna, Yi.
//!
//! Touvron et al. 2023 (<https://arxiv.org/abs/2302.13971>), Dubey et al. 2024. As Hugging Face's
//! `modeling_llama.py`: grouped queries, rotary positions in halves, SwiGLU, RMS norms.

use super::block::{Block, Decoder, Layer};
use super::config::{Config, ConfigError};
use mobilis_runtime::nn::{AttentionOptions, GroupedSelfAttention, SwiGlu};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Llama may choose.
    pub trait LlamaAxes {
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
        /// The width between the feed-forward products.
        Ffn,
    }
    /// A Llama of sizes from a `config.json`.
    pub struct AnyLlama: LlamaAxes;
}

/// Llama's attention.
pub type Attention<A> = GroupedSelfAttention<
    <A as LlamaAxes>::Hidden,
    <A as LlamaAxes>::KvHeads,
    <A as LlamaAxes>::Groups,
    <A as LlamaAxes>::HeadDim,
>;
/// Llama's feed-forward layer.
pub type Mlp<A> = SwiGlu<<A as LlamaAxes>::Hidden, <A as LlamaAxes>::Ffn>;
/// One layer of a Llama.
pub type LlamaBlock<A> = Block<<A as LlamaAxes>::Hidden, Attention<A>, Mlp<A>>;
/// The language model: `Llama<AnyLlama>`, or with a bundle of sizes that the compiler knows.
pub type Llama<A> = Decoder<<A as LlamaAxes>::Vocab, <A as LlamaAxes>::Hidden, LlamaBlock<A>>;

/// The sizes that a configuration gives to a Llama's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: LlamaAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let heads = config.heads()?;
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::KvHeads>(heads.kv)
        .with::<A::Groups>(heads.groups)
        .with::<A::HeadDim>(heads.dim)
        .with::<A::Ffn>(config.size("intermediate_size")?))
}

/// Causal attention with a configuration's rotary positions and biases.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn attention<A: LlamaAxes>(config: &Config) -> Result<Attention<A>, ConfigError> {
    let options = AttentionOptions { causal: true, rope: Some(config.rotary(None)?), ..AttentionOptions::default() };
    let attention = Attention::<A>::default().with(options);
    Ok(if config.flag("attention_bias", false)? { attention.bias() } else { attention })
}

/// The feed-forward layer of a configuration.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn mlp<A: LlamaAxes>(config: &Config) -> Result<Mlp<A>, ConfigError> {
    let mut mlp = Mlp::<A>::default().activation(config.activation("hidden_act", "silu")?);
    if config.flag("mlp_bias", false)? {
        mlp.gate_proj.bias = Some(Default::default());
        mlp.up_proj.bias = Some(Default::default());
        mlp.down_proj.bias = Some(Default::default());
    }
    Ok(mlp)
}

/// A decoder of a configuration's number of layers, made one by one by a function.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn decoder<A: LlamaAxes, L: Layer<A::Hidden>>(
    config: &Config,
    layer: impl Fn(usize) -> Result<L, ConfigError>,
) -> Result<Decoder<A::Vocab, A::Hidden, L>, ConfigError> {
    let layers = (0..config.layers()?).map(layer).collect::<Result<_, _>>()?;
    Ok(Decoder::new(layers, eps(config)?, config.flag("tie_word_embeddings", false)?))
}

/// A decoder of Llama's blocks whose attention a function makes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn with_attention<A: LlamaAxes>(
    config: &Config,
    attention: impl Fn(usize) -> Result<Attention<A>, ConfigError>,
) -> Result<Llama<A>, ConfigError> {
    decoder::<A, _>(config, |i| Ok(Block::new(attention(i)?, mlp::<A>(config)?, eps(config)?)))
}

/// What norms add to the mean square.
///
/// # Errors
/// No number.
pub fn eps(config: &Config) -> Result<f64, ConfigError> {
    config.number("rms_norm_eps", 1e-6)
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn llama<A: LlamaAxes>(config: &Config) -> Result<Llama<A>, ConfigError> {
    with_attention::<A>(config, |_| attention::<A>(config))
}
