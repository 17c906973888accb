//! Gemma 2 and 3 (`Gemma2ForCausalLM`, `Gemma3ForCausalLM`, the text part of
//! `Gemma3ForConditionalGeneration`).
//!
//! Gemma Team 2024 (<https://arxiv.org/abs/2408.00118>), 2025 (<https://arxiv.org/abs/2503.19786>).
//! As Hugging Face's `modeling_gemma2.py` and `modeling_gemma3.py`. Beside a Llama:
//!
//! * norms stand before and after attention and the feed-forward layer, and their weights are stored
//!   around zero;
//! * embeddings are multiplied by the square root of their width, heads are tied to them;
//! * scores are multiplied by `1 / sqrt(query_pre_attn_scalar)`;
//! * layers take turns between a sliding window and the whole text;
//! * Gemma 2 bounds scores and logits by soft caps;
//! * Gemma 3 norms queries and keys, and has two sets of rotary positions: one for sliding layers
//!   (`rope_local_base_freq` in older files), one, perhaps scaled, for the others.

use super::block::{Decoder, SandwichBlock};
use super::config::{Config, ConfigError};
use super::llama::{self, Attention, LlamaAxes, Mlp};
use mobilis_runtime::nn::{RmsNorm, Rotary};
use serde_json::json;

/// One layer of a Gemma.
pub type GemmaBlock<A> = SandwichBlock<<A as LlamaAxes>::Hidden, Attention<A>, Mlp<A>>;
/// The language model.
pub type Gemma<A> = Decoder<<A as LlamaAxes>::Vocab, <A as LlamaAxes>::Hidden, GemmaBlock<A>>;

/// The configuration with what transformers takes for settings that a Gemma 2's file lacks.
pub fn gemma2_config(config: Config) -> Config {
    common_defaults(config).with_defaults(json!({
        "vocab_size": 256_000, "max_position_embeddings": 8192,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    }))
}

/// The configuration of a Gemma 3's text part, with what transformers takes for settings that the
/// file lacks: those on the Hub tell little.
pub fn gemma3_config(config: Config) -> Config {
    let config = config.inner("text_config").unwrap_or(config);
    common_defaults(config).with_defaults(json!({
        "model_type": "gemma3_text", "vocab_size": 262_208, "max_position_embeddings": 131_072,
    }))
}

fn common_defaults(config: Config) -> Config {
    config.with_defaults(json!({
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
        "query_pre_attn_scalar": 256, "sliding_window": 4096,
    }))
}

/// The module that a Gemma 2's configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn gemma2<A: LlamaAxes>(config: &Config) -> Result<Gemma<A>, ConfigError> {
    let cap = soft_cap(config, "attn_logit_softcapping")?;
    gemma::<A>(config, |i| {
        let mut attention = llama::attention::<A>(config)?;
        attention.options.window = config.window(i, |i| i % 2 == 0)?;
        attention.options.soft_cap = cap;
        Ok(attention)
    })
}

/// The module that a Gemma 3's configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn gemma3<A: LlamaAxes>(config: &Config) -> Result<Gemma<A>, ConfigError> {
    if config.flag("use_bidirectional_attention", false)? {
        return Err(config.wrong("use_bidirectional_attention", "false: texts are continued from left to right"));
    }
    let period = match config.count("sliding_window_pattern")? {
        None => 6,
        Some(0) => return Err(config.wrong("sliding_window_pattern", "a whole number of at least 1")),
        Some(n) => n,
    };
    let eps = llama::eps(config)?;
    gemma::<A>(config, |i| {
        let mut attention = llama::attention::<A>(config)?;
        attention.options.window = config.window(i, |i| !(i + 1).is_multiple_of(period))?;
        attention.options.rope = Some(rotary(config, attention.options.window.is_some())?);
        attention.q_norm = Some(RmsNorm::default().eps(eps).around_zero());
        attention.k_norm = Some(RmsNorm::default().eps(eps).around_zero());
        Ok(attention)
    })
}

/// A bound that values approach smoothly; none where it is zero or absent.
fn soft_cap(config: &Config, key: &str) -> Result<Option<f64>, ConfigError> {
    match config.number_if(key)? {
        Some(cap) if cap <= 0.0 || !cap.is_finite() => Err(config.wrong(key, "a positive number or null")),
        cap => Ok(cap),
    }
}

/// The rotary positions of Gemma 3's sliding layers, or of the others.
fn rotary(config: &Config, sliding: bool) -> Result<Rotary, ConfigError> {
    let kind = if sliding { "sliding_attention" } else { "full_attention" };
    let sets = config.inner("rope_parameters").is_some_and(|sets| sets.inner(kind).is_some());
    match (sets, sliding) {
        (true, _) => config.rotary(Some(kind)),
        (false, true) => Ok(Rotary { theta: config.number("rope_local_base_freq", 10_000.0)?, ..Rotary::default() }),
        (false, false) => config.clone().with_defaults(json!({ "rope_theta": 1e6 })).rotary(None),
    }
}

/// A Gemma whose attention a function makes, its scale apart.
fn gemma<A: LlamaAxes>(
    config: &Config,
    attention: impl Fn(usize) -> Result<Attention<A>, ConfigError>,
) -> Result<Gemma<A>, ConfigError> {
    let eps = llama::eps(config)?;
    let scalar = config.number("query_pre_attn_scalar", 256.0)?;
    if scalar <= 0.0 || !scalar.is_finite() {
        return Err(config.wrong("query_pre_attn_scalar", "a positive number"));
    }
    let activation = config.activation("hidden_activation", "gelu_pytorch_tanh")?;
    let norm = || RmsNorm::default().eps(eps).around_zero();
    let mut gemma = llama::decoder::<A, _>(config, |i| {
        let mut attention = attention(i)?;
        attention.options.scale = Some(scalar.powf(-0.5));
        Ok(SandwichBlock::new(attention, Mlp::<A>::default().activation(activation), norm))
    })?;
    gemma.model.norm = RmsNorm::default().eps(eps).around_zero();
    gemma.model.scale = (config.size("hidden_size")? as f64).sqrt();
    gemma.soft_cap = soft_cap(config, "final_logit_softcapping")?;
    Ok(gemma)
}
