//! A configuration as the metadata of a GGUF file: the keys that llama.cpp's converter writes
//! (`conversion/*.py`), which `import::gguf::config` reads back.

use super::names::Sizes;
use crate::import::ImportError;
use crate::import::gguf::meta::Meta;
use crate::import::gguf::rope::llama3_factors;
use crate::import::gguf::tables::Architecture;
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::nn::Scaling;
use serde_json::Value;

/// What a configuration says in GGUF's terms.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Metadata, in order.
    pub(super) metadata: Vec<(String, Meta)>,
    /// What the layout of tensors depends on.
    pub(super) sizes: Sizes,
    /// Tensors that hold frequencies of rotations.
    pub(super) factors: Vec<(&'static str, Vec<f32>)>,
}

struct Writer<'c> {
    config: &'c Config,
    prefix: &'static str,
    out: Settings,
}

/// The metadata of a model, without its vocabulary.
///
/// # Errors
/// Settings that are missing or of another kind, or that GGUF cannot say.
pub(super) fn settings(config: &Value, architecture: Architecture) -> Result<Settings, ImportError> {
    let config = Config::new("config.json", config.clone());
    let mut writer = Writer { config: &config, prefix: architecture.name(), out: Settings::default() };
    writer.all(architecture).map_err(|e| ImportError::Export(e.to_string()))?;
    Ok(writer.out)
}

type Done = Result<(), ConfigError>;

impl Writer<'_> {
    fn put(&mut self, key: &str, value: Meta) {
        self.out.metadata.push((format!("{}.{key}", self.prefix), value));
    }

    fn count(&mut self, key: &str, value: usize) {
        self.put(key, Meta::Count(value as u64));
    }

    /// A whole number of the configuration, under the first of its spellings.
    fn size(&mut self, key: &str, of: &[&str]) -> Result<usize, ConfigError> {
        let n = self.config.size_of(of)?;
        self.count(key, n);
        Ok(n)
    }

    /// One that may be absent.
    fn size_if(&mut self, key: &str, of: &str) -> Result<Option<usize>, ConfigError> {
        let n = self.config.count(of)?;
        if let Some(n) = n {
            self.count(key, n);
        }
        Ok(n)
    }

    fn float(&mut self, key: &str, of: &str, default: f64) -> Done {
        let value = self.config.number(of, default)?;
        self.put(key, Meta::Float(value));
        Ok(())
    }

    fn all(&mut self, architecture: Architecture) -> Done {
        use Architecture::*;
        match architecture {
            Gpt2 => {
                self.size("block_count", &["n_layer"])?;
                self.size("context_length", &["n_positions", "n_ctx"])?;
                let hidden = self.size("embedding_length", &["n_embd"])?;
                let inner = self.config.count("n_inner")?.unwrap_or(4 * hidden);
                self.count("feed_forward_length", inner);
                self.out.sizes.heads = self.size("attention.head_count", &["n_head"])?;
                self.float("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-5)
            }
            Mamba | Mamba2 => self.mamba(architecture == Mamba2),
            Bert => {
                self.size("block_count", &["num_hidden_layers"])?;
                self.size("context_length", &["max_position_embeddings"])?;
                self.size("embedding_length", &["hidden_size"])?;
                self.size("feed_forward_length", &["intermediate_size"])?;
                self.out.sizes.heads = self.size("attention.head_count", &["num_attention_heads"])?;
                self.put("attention.causal", Meta::Bool(false));
                self.out.metadata.push((
                    "tokenizer.ggml.token_type_count".into(),
                    Meta::Count(self.config.count("type_vocab_size")?.unwrap_or(2) as u64),
                ));
                self.float("attention.layer_norm_epsilon", "layer_norm_eps", 1e-12)
            }
            T5 => {
                let layers = self.size("block_count", &["num_layers"])?;
                let decoder = self.config.count("num_decoder_layers")?.unwrap_or(layers);
                self.count("decoder_block_count", decoder);
                let context = self.config.count("n_positions")?.unwrap_or(512);
                self.count("context_length", context);
                self.size("embedding_length", &["d_model"])?;
                self.size("feed_forward_length", &["d_ff"])?;
                self.out.sizes.heads = self.size("attention.head_count", &["num_heads"])?;
                let dim = self.size("attention.key_length", &["d_kv"])?;
                self.count("attention.value_length", dim);
                self.size("attention.relative_buckets_count", &["relative_attention_num_buckets"])?;
                // Not one of llama.cpp's keys: it takes 128 for granted, as published models have it.
                if let Some(most) = self.config.count("relative_attention_max_distance")?.filter(|n| *n != 128) {
                    self.count("attention.relative_max_distance", most);
                }
                let start = self.config.count("decoder_start_token_id")?.unwrap_or(0);
                self.count("decoder_start_token_id", start);
                self.float("attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-6)?;
                self.float("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", 1e-6)
            }
            decoder => self.decoder(decoder),
        }
    }

    fn mamba(&mut self, second: bool) -> Done {
        let hidden = self.size("embedding_length", &["hidden_size", "d_model"])?;
        self.size("block_count", &["num_hidden_layers", "n_layer"])?;
        self.count("context_length", 1 << 20);
        self.count("feed_forward_length", 0);
        self.count("attention.head_count", 0);
        let expand = self.config.count("expand")?.unwrap_or(2);
        let inner = match (second, self.config.count("intermediate_size")?) {
            (false, Some(inner)) => inner,
            _ => expand.saturating_mul(hidden),
        };
        self.count("ssm.inner_size", inner);
        self.size("ssm.conv_kernel", &["conv_kernel"])?;
        self.size("ssm.state_size", &["state_size"])?;
        if second {
            self.size("ssm.time_step_rank", &["num_heads"])?;
            let groups = self.config.count("n_groups")?.unwrap_or(1);
            self.count("ssm.group_count", groups);
            self.out.sizes.groups = groups;
        } else {
            // transformers writes `auto` as its value.
            let rank = self.config.count("time_step_rank").ok().flatten().unwrap_or(hidden.div_ceil(16));
            self.count("ssm.time_step_rank", rank);
            self.put("ssm.dt_b_c_rms", Meta::Bool(false));
        }
        self.float("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", 1e-5)
    }

    fn decoder(&mut self, architecture: Architecture) -> Done {
        use Architecture::*;
        let heads = self.config.heads()?;
        self.out.sizes = Sizes { heads: heads.all, kv_heads: heads.kv, ..Sizes::default() };
        let layers = self.size("block_count", &["num_hidden_layers"])?;
        let positions = self.size("context_length", &["max_position_embeddings"])?;
        self.size("embedding_length", &["hidden_size"])?;
        self.size("feed_forward_length", &["intermediate_size"])?;
        self.count("attention.head_count", heads.all);
        self.float("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-6)?;
        self.size("vocab_size", &["vocab_size"])?;
        let moe =
            ["num_local_experts", "num_experts", "n_routed_experts"].into_iter().find(|k| self.config.get(k).is_some());
        if let Some(key) = moe {
            self.size("expert_count", &[key])?;
            self.size("expert_used_count", &["num_experts_per_tok"])?;
        }
        if architecture == Deepseek2 {
            self.deepseek()?;
        } else {
            self.count("attention.head_count_kv", heads.kv);
            self.count("attention.key_length", heads.dim);
            self.count("attention.value_length", heads.dim);
            self.size_if("expert_feed_forward_length", "moe_intermediate_size")?;
            self.size_if("expert_shared_feed_forward_length", "shared_expert_intermediate_size")?;
        }
        let kind = (architecture == Gemma3).then_some("full_attention");
        let rotary = self.config.rotary(kind)?;
        self.put("rope.freq_base", Meta::Float(rotary.theta));
        let rotated = match architecture {
            Deepseek2 => self.config.size("qk_rope_head_dim")?,
            _ => (heads.dim as f64 * rotary.partial) as usize,
        };
        self.count("rope.dimension_count", rotated);
        self.scaling(&rotary.scaling, rotated, rotary.theta)?;
        match architecture {
            Gemma2 | Gemma3 => self.gemma(layers, architecture == Gemma3)?,
            Phi3 => {
                let window = self.config.count("sliding_window")?.unwrap_or(0);
                self.count("attention.sliding_window", window);
                let original = self.config.count("original_max_position_embeddings")?.unwrap_or(positions);
                if !self.out.metadata.iter().any(|(k, _)| k.ends_with(".original_context_length")) {
                    self.count("rope.scaling.original_context_length", original);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn deepseek(&mut self) -> Done {
        // The converter makes one head of keys of what all share.
        self.count("attention.head_count_kv", 1);
        self.out.sizes.kv_heads = 1;
        let (rope, nope) = (self.config.size("qk_rope_head_dim")?, self.config.size("qk_nope_head_dim")?);
        let latent = self.size("attention.kv_lora_rank", &["kv_lora_rank"])?;
        self.size_if("attention.q_lora_rank", "q_lora_rank")?;
        self.count("attention.key_length", latent + rope);
        self.count("attention.value_length", latent);
        self.count("attention.key_length_mla", nope + rope);
        self.size("attention.value_length_mla", &["v_head_dim"])?;
        self.out.sizes.nope = nope;
        self.size("expert_feed_forward_length", &["moe_intermediate_size"])?;
        let shared = self.config.count("n_shared_experts")?.unwrap_or(0);
        self.count("expert_shared_count", shared);
        let dense = self.config.count("first_k_dense_replace")?.unwrap_or(0);
        self.count("leading_dense_block_count", dense);
        self.float("expert_weights_scale", "routed_scaling_factor", 1.0)?;
        let norm = self.config.flag("norm_topk_prob", false)?;
        self.put("expert_weights_norm", Meta::Bool(norm));
        let sigmoid = self.config.model_type()? == "deepseek_v3";
        self.count("expert_gating_func", if sigmoid { 2 } else { 1 });
        self.size_if("expert_group_count", "n_group")?;
        self.size_if("expert_group_used_count", "topk_group")?;
        Ok(())
    }

    fn gemma(&mut self, layers: usize, third: bool) -> Done {
        let mut sliding = Vec::new();
        let mut window = None;
        let period = if third { 6 } else { 2 };
        for i in 0..layers {
            let of = self.config.window(i, |i| (i + 1) % period != 0)?;
            sliding.push(of.is_some());
            window = window.or(of);
        }
        if let Some(window) = window {
            self.put("attention.sliding_window", Meta::Count(window));
        }
        self.put("attention.sliding_window_pattern", Meta::Bools(sliding));
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.config.number_if(key)? {
                self.put(key, Meta::Float(cap));
            }
        }
        if let Some(scalar) = self.config.number_if("query_pre_attn_scalar")? {
            self.put("attention.scale", Meta::Float(scalar.powf(-0.5)));
        }
        if third {
            let local = match self.config.inner("rope_parameters") {
                Some(_) => self.config.rotary(Some("sliding_attention"))?.theta,
                None => self.config.number("rope_local_base_freq", 10_000.0)?,
            };
            self.put("rope.freq_base_swa", Meta::Float(local));
        }
        Ok(())
    }

    fn scaling(&mut self, scaling: &Scaling, dim: usize, theta: f64) -> Done {
        let word = |w: &str| Meta::Text(w.into());
        match scaling {
            Scaling::None => {}
            Scaling::Linear { factor } => {
                self.put("rope.scaling.type", word("linear"));
                self.put("rope.scaling.factor", Meta::Float(*factor));
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let factors = llama3_factors(dim, theta, [*factor, *low, *high, *original]);
                self.out.factors.push(("rope_freqs.weight", factors));
            }
            Scaling::Yarn(yarn) => {
                self.put("rope.scaling.type", word("yarn"));
                self.put("rope.scaling.factor", Meta::Float(yarn.factor));
                self.put("rope.scaling.original_context_length", Meta::Count(yarn.original as u64));
                self.put("rope.scaling.yarn_beta_fast", Meta::Float(yarn.beta_fast));
                self.put("rope.scaling.yarn_beta_slow", Meta::Float(yarn.beta_slow));
                if let Some(attention) = yarn.attention {
                    self.put("rope.scaling.yarn_attn_factor", Meta::Float(attention));
                }
                if let Some((mscale, all)) = yarn.mscale {
                    if mscale != all {
                        return Err(self
                            .config
                            .wrong("rope_scaling", "the same `mscale` and `mscale_all_dim`, as GGUF has but one"));
                    }
                    self.put("rope.scaling.yarn_log_multiplier", Meta::Float(0.1 * all));
                }
            }
            Scaling::LongRope { short, long, original, attention } => {
                self.put("rope.scaling.type", word("longrope"));
                self.put("rope.scaling.original_context_length", Meta::Count(*original as u64));
                self.put("rope.scaling.attn_factor", Meta::Float(*attention));
                let narrow = |v: &Vec<f64>| v.iter().map(|v| *v as f32).collect();
                self.out.factors.push(("rope_factors_long.weight", narrow(long)));
                self.out.factors.push(("rope_factors_short.weight", narrow(short)));
            }
            Scaling::Dynamic { .. } => {
                return Err(self
                    .config
                    .wrong("rope_scaling", "another scaling than `dynamic`, which GGUF does not have"));
            }
        }
        Ok(())
    }
}
