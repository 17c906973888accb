//! Qwen 2, 2.5 and 3, the dense ones (`Qwen2ForCausalLM`, `Qwen3ForCausalLM`).
//!
//! Yang et al. 2024 (<https://arxiv.org/abs/2407.10671>), 2025 (<https://arxiv.org/abs/2505.09388>).
//! As Hugging Face's `modeling_qwen2.py` and `modeling_qwen3.py`: a Llama with
//!
//! * biases in the projections of queries, keys and values (Qwen 2), or a norm of each query and key
//!   before rotation (Qwen 3);
//! * with `use_sliding_window`, a sliding window in the layers that `layer_types` names, which are
//!   those from `max_window_layers` on where the file does not say.

use super::config::{Config, ConfigError};
use super::llama::{self, Attention, Llama, LlamaAxes};

/// The sliding window of layer `i`.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn window(config: &Config, i: usize) -> Result<Option<u64>, ConfigError> {
    if !config.flag("use_sliding_window", false)? {
        return Ok(None);
    }
    let first = config.count("max_window_layers")?.unwrap_or(28);
    let bounded = config.count("sliding_window")?.is_some();
    config.window(i, |i| bounded && i >= first)
}

/// Attention of layer `i` of a Qwen 2.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn attention2<A: LlamaAxes>(config: &Config, i: usize) -> Result<Attention<A>, ConfigError> {
    let mut attention = llama::attention::<A>(config)?.qkv_bias();
    attention.options.window = window(config, i)?;
    Ok(attention)
}

/// Attention of layer `i` of a Qwen 3.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn attention3<A: LlamaAxes>(config: &Config, i: usize) -> Result<Attention<A>, ConfigError> {
    let mut attention = llama::attention::<A>(config)?.qk_norm(llama::eps(config)?);
    attention.options.window = window(config, i)?;
    Ok(attention)
}

/// The Qwen 2 that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn qwen2<A: LlamaAxes>(config: &Config) -> Result<Llama<A>, ConfigError> {
    llama::with_attention::<A>(config, |i| attention2::<A>(config, i))
}

/// The Qwen 3 that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn qwen3<A: LlamaAxes>(config: &Config) -> Result<Llama<A>, ConfigError> {
    llama::with_attention::<A>(config, |i| attention3::<A>(config, i))
}
