//! Qwen 1.5 and 2 MoE, and Qwen 3 MoE: Llama's block with experts in some or all layers.
//!
//! Qwen2-MoE has biases of queries, keys and values, and a shared expert behind a gate
//! (<https://qwenlm.github.io/blog/qwen-moe/>); Qwen3-MoE norms queries and keys and has none
//! (<https://arxiv.org/abs/2505.09388>). As Hugging Face's `modeling_qwen2_moe.py` and
//! `modeling_qwen3_moe.py`.

use super::block::{Block, Decoder};
use super::config::{Config, ConfigError};
use super::moe::{self, Either, SparseMlp};
use mobilis_runtime::nn::{AttentionOptions, GroupedSelfAttention, SwiGlu};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Qwen of experts may choose.
    pub trait QwenMoeAxes {
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
        /// The width of layers without experts.
        Ffn,
        /// Experts of a layer.
        Experts,
        /// Experts that are chosen for a token.
        Chosen,
        /// The width of an expert.
        ExpertFfn,
        /// The width of the shared expert.
        SharedFfn,
    }
    /// A Qwen of experts of sizes from a `config.json`.
    pub struct AnyQwenMoe: QwenMoeAxes;
}

/// Attention.
pub type Attention<A> = GroupedSelfAttention<
    <A as QwenMoeAxes>::Hidden,
    <A as QwenMoeAxes>::KvHeads,
    <A as QwenMoeAxes>::Groups,
    <A as QwenMoeAxes>::HeadDim,
>;
/// A layer of experts.
pub type Moe<A> = SparseMlp<
    <A as QwenMoeAxes>::Hidden,
    <A as QwenMoeAxes>::Experts,
    <A as QwenMoeAxes>::Chosen,
    <A as QwenMoeAxes>::ExpertFfn,
    <A as QwenMoeAxes>::SharedFfn,
    SwiGlu<<A as QwenMoeAxes>::Hidden, <A as QwenMoeAxes>::ExpertFfn>,
>;
/// The feed-forward layer of a block.
pub type Mlp<A> = Either<SwiGlu<<A as QwenMoeAxes>::Hidden, <A as QwenMoeAxes>::Ffn>, Moe<A>>;
/// One layer.
pub type QwenMoeBlock<A> = Block<<A as QwenMoeAxes>::Hidden, Attention<A>, Mlp<A>>;
/// The language model.
pub type QwenMoe<A> = Decoder<<A as QwenMoeAxes>::Vocab, <A as QwenMoeAxes>::Hidden, QwenMoeBlock<A>>;

/// The setting of the number of experts: transformers 5 writes Qwen 3's `num_experts` as
/// `num_local_experts`.
pub const EXPERTS: [&str; 2] = ["num_experts", "num_local_experts"];

/// Whether a configuration is of the second or the third series.
fn is_second(config: &Config) -> Result<bool, ConfigError> {
    Ok(config.model_type()? == "qwen2_moe")
}

/// The sizes that a configuration gives to the axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: QwenMoeAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let heads = config.heads()?;
    let (experts, chosen) = moe::experts(config, &EXPERTS)?;
    // Where no layer has them their sizes do not matter.
    let or_one = |key: &str| Ok(config.count(key)?.filter(|n| *n > 0).unwrap_or(1));
    let shared = if is_second(config)? { config.size("shared_expert_intermediate_size")? } else { 1 };
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::KvHeads>(heads.kv)
        .with::<A::Groups>(heads.groups)
        .with::<A::HeadDim>(heads.dim)
        .with::<A::Ffn>(or_one("intermediate_size")?)
        .with::<A::Experts>(experts)
        .with::<A::Chosen>(chosen)
        .with::<A::ExpertFfn>(config.size("moe_intermediate_size")?)
        .with::<A::SharedFfn>(shared))
}

/// The sliding window of layer `i`, where it has one: in Qwen2-MoE every other of the first
/// `max_window_layers`, in Qwen3-MoE all, and nowhere without `use_sliding_window`.
///
/// # Errors
/// Settings of another kind.
fn window(config: &Config, i: usize) -> Result<Option<u64>, ConfigError> {
    if !config.flag("use_sliding_window", false)? {
        return Ok(None);
    }
    let second = is_second(config)?;
    let first = config.count("max_window_layers")?.unwrap_or(28);
    config.window(i, |i| if second { i % 2 == 0 && i < first } else { config.get("sliding_window").is_some() })
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn qwen_moe<A: QwenMoeAxes>(config: &Config) -> Result<QwenMoe<A>, ConfigError> {
    let eps = config.number("rms_norm_eps", 1e-6)?;
    let (second, (experts, _)) = (is_second(config)?, moe::experts(config, &EXPERTS)?);
    let activation = config.activation("hidden_act", "silu")?;
    let (normed, rope) = (config.flag("norm_topk_prob", false)?, config.rotary(None)?);
    let attention = |i: usize| {
        let (rope, window) = (Some(rope.clone()), window(config, i)?);
        let options = AttentionOptions { causal: true, rope, window, ..AttentionOptions::default() };
        let attention = Attention::<A>::default().with(options);
        Ok(match (second, config.flag("qkv_bias", true)?, config.flag("attention_bias", false)?) {
            (true, true, _) => attention.qkv_bias(),
            (true, false, _) => attention,
            (false, _, true) => attention.qk_norm(eps).bias(),
            (false, _, false) => attention.qk_norm(eps),
        })
    };
    let mlp = |i: usize| {
        if !moe::is_sparse(config, i)? {
            return Ok(Either::Dense(SwiGlu::default().activation(activation)));
        }
        let all = (0..experts).map(|_| SwiGlu::default()).collect();
        let sparse = SparseMlp::new(all, activation, normed);
        Ok(Either::Sparse(if second { sparse.shared() } else { sparse }))
    };
    let layer = |i: usize| Ok(Block::new(attention(i)?, mlp(i)?, eps));
    let layers = (0..config.layers()?).map(layer).collect::<Result<_, ConfigError>>()?;
    Ok(Decoder::new(layers, eps, config.flag("tie_word_embeddings", false)?))
}
