//! Mistral 7B and its kin (`MistralForCausalLM`).
//!
//! Jiang et al. 2023 (<https://arxiv.org/abs/2310.06825>). As Hugging Face's `modeling_mistral.py`:
//! a Llama whose attention sees a sliding window of `sliding_window` positions in every layer, where
//! the setting is there, and whose linear layers have no biases.

use super::config::{Config, ConfigError};
use super::llama::{self, Llama, LlamaAxes};

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn mistral<A: LlamaAxes>(config: &Config) -> Result<Llama<A>, ConfigError> {
    let window = config.count("sliding_window")?.filter(|w| *w > 0);
    llama::with_attention::<A>(config, |_| {
        let mut attention = llama::attention::<A>(config)?;
        attention.options.window = window.map(|w| w as u64);
        Ok(attention)
    })
}
