//! The metadata of a GGUF file as Hugging Face's `config.json`.

use super::tables::Architecture;
use super::{Gguf, rope};
use crate::import::ImportError;
use mobilis_runtime::Source;
use mobilis_runtime::graph::DType;
use serde_json::{Map, Value, json};

/// The configuration of a file's model.
///
/// # Errors
/// Metadata that is missing or of another kind.
pub fn config(gguf: &Gguf, architecture: Architecture) -> Result<Value, ImportError> {
    let reader = Reader { gguf, name: architecture.name() };
    Ok(Value::Object(reader.config(architecture).map_err(|f| gguf.fault(f))?))
}

/// Metadata under an architecture's prefix.
struct Reader<'g> {
    gguf: &'g Gguf,
    name: &'static str,
}

type Object = Map<String, Value>;

/// Puts entries into an object.
fn put<const N: usize>(object: &mut Object, entries: [(&str, Value); N]) {
    object.extend(entries.into_iter().map(|(k, v)| (k.to_string(), v)));
}

impl Reader<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn need(&self, key: &str) -> Result<u64, String> {
        self.gguf.metadata().need(&self.key(key))
    }

    fn count(&self, key: &str) -> Result<Option<u64>, String> {
        self.gguf.metadata().count(&self.key(key))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, String> {
        self.gguf.metadata().float(&self.key(key))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.gguf.metadata().flag(&self.key(key))
    }

    /// The size of a dimension of a tensor that must be there.
    fn size(&self, tensor: &str, dim: usize) -> Result<u64, String> {
        let entry = self.gguf.entry(tensor).ok_or_else(|| format!("it has no tensor `{tensor}`"))?;
        let size = entry
            .sizes
            .get(dim)
            .ok_or_else(|| format!("tensor `{tensor}` has only {} dimensions", entry.sizes.len()))?;
        Ok(*size as u64)
    }

    fn has(&self, tensor: &str) -> bool {
        self.gguf.entry(tensor).is_some()
    }

    fn reals(&self, tensor: &str) -> Result<Option<Vec<f32>>, String> {
        if !self.has(tensor) {
            return Ok(None);
        }
        let data = self.gguf.read(tensor, DType::F32, false).map_err(|e| e.to_string())?;
        Ok(Some(data.to_f64().into_iter().map(|v| v as f32).collect()))
    }

    fn config(&self, architecture: Architecture) -> Result<Object, String> {
        use Architecture::*;
        let mut object = Object::new();
        match architecture {
            Gpt2 => self.gpt2(&mut object)?,
            Mamba | Mamba2 => self.mamba(&mut object, architecture)?,
            Bert => self.bert(&mut object)?,
            T5 => self.t5(&mut object)?,
            decoder => self.decoder(&mut object, decoder)?,
        }
        put(&mut object, [("vocab_size", self.size("token_embd.weight", 0)?.into())]);
        if architecture != Bert {
            put(&mut object, [("tie_word_embeddings", (!self.has("output.weight")).into())]);
        }
        for (theirs, ours) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
            let id = self.gguf.metadata().count(&format!("tokenizer.ggml.{theirs}_token_id"))?;
            put(&mut object, [(ours, id.map_or(Value::Null, Value::from))]);
        }
        Ok(object)
    }

    fn decoder(&self, object: &mut Object, architecture: Architecture) -> Result<(), String> {
        use Architecture::*;
        let (hidden, heads) = (self.need("embedding_length")?, self.need("attention.head_count")?);
        if heads == 0 {
            return Err(format!("`{}` is 0", self.key("attention.head_count")));
        }
        let experts = self.count("expert_count")?.unwrap_or(0);
        let (model_type, class) = match architecture {
            Llama if experts > 0 => ("mixtral", "MixtralForCausalLM"),
            Llama => ("llama", "LlamaForCausalLM"),
            Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Qwen2Moe => ("qwen2_moe", "Qwen2MoeForCausalLM"),
            Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
            Gemma2 => ("gemma2", "Gemma2ForCausalLM"),
            Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
            Phi3 => ("phi3", "Phi3ForCausalLM"),
            // Sigmoid routing came with the third version.
            _ if self.count("expert_gating_func")? == Some(2) => ("deepseek_v3", "DeepseekV3ForCausalLM"),
            _ => ("deepseek_v2", "DeepseekV2ForCausalLM"),
        };
        let kv = self.count("attention.head_count_kv")?.unwrap_or(heads);
        let dim = self.count("attention.key_length")?.unwrap_or(hidden / heads);
        put(
            object,
            [
                ("model_type", model_type.into()),
                ("architectures", json!([class])),
                ("hidden_size", hidden.into()),
                ("intermediate_size", self.need("feed_forward_length")?.into()),
                ("num_hidden_layers", self.need("block_count")?.into()),
                ("num_attention_heads", heads.into()),
                ("num_key_value_heads", kv.into()),
                ("head_dim", dim.into()),
                ("max_position_embeddings", self.need("context_length")?.into()),
                ("rms_norm_eps", self.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6).into()),
                ("rope_theta", self.theta()?.into()),
                ("rope_scaling", self.scaling(dim)?),
                ("hidden_act", "silu".into()),
                ("attention_bias", self.has("blk.0.attn_output.bias").into()),
            ],
        );
        match architecture {
            Llama => {
                put(object, [("mlp_bias", self.has("blk.0.ffn_up.bias").into())]);
                if experts > 0 {
                    let used = self.need("expert_used_count")?;
                    put(object, [("num_local_experts", experts.into()), ("num_experts_per_tok", used.into())]);
                }
            }
            Qwen2 | Qwen3 => put(object, [("sliding_window", Value::Null), ("use_sliding_window", false.into())]),
            Qwen2Moe | Qwen3Moe => self.qwen_moe(object, architecture, experts)?,
            Gemma2 | Gemma3 => self.gemma(object, architecture, [hidden, heads, dim])?,
            Phi3 => self.phi3(object, [hidden, heads])?,
            _ => self.deepseek(object, experts)?,
        }
        Ok(())
    }

    fn theta(&self) -> Result<f64, String> {
        Ok(self.float("rope.freq_base")?.unwrap_or(10_000.0))
    }

    fn scaling(&self, dim: u64) -> Result<Value, String> {
        if let Some(factors) = self.reals("rope_freqs.weight")? {
            return Ok(rope::llama3(&factors, self.theta()?).unwrap_or(Value::Null));
        }
        let kind = self.gguf.metadata().text(&self.key("rope.scaling.type"))?.map(String::from);
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
        };
        let original = self.count("rope.scaling.original_context_length")?;
        let lists = (self.reals("rope_factors_long.weight")?, self.reals("rope_factors_short.weight")?);
        Ok(match (kind.as_deref(), factor, lists) {
            (_, _, (Some(long), Some(short))) => {
                let tidy = |list: Vec<f32>| list.into_iter().map(super::meta::decimal).collect::<Vec<f64>>();
                json!({ "rope_type": "longrope", "type": "longrope", "long_factor": tidy(long), "short_factor": tidy(short) })
            }
            (Some("linear") | None, Some(factor), _) if factor > 0.0 && factor != 1.0 => {
                json!({ "rope_type": "linear", "type": "linear", "factor": factor })
            }
            (Some("yarn"), Some(factor), _) => {
                let mut yarn = json!({ "rope_type": "yarn", "type": "yarn", "factor": factor });
                let mut add = |key: &str, value: Option<f64>| {
                    if let (Some(value), Some(yarn)) = (value, yarn.as_object_mut()) {
                        yarn.insert(key.into(), value.into());
                    }
                };
                add("beta_fast", self.float("rope.scaling.yarn_beta_fast")?);
                add("beta_slow", self.float("rope.scaling.yarn_beta_slow")?);
                add("attention_factor", self.float("rope.scaling.yarn_attn_factor")?);
                // The converter writes a tenth of `mscale_all_dim`, and published models have both alike.
                let mscale =
                    self.float("rope.scaling.yarn_log_multiplier")?.map(|v| super::meta::decimal((v * 10.0) as f32));
                add("mscale", mscale);
                add("mscale_all_dim", mscale);
                if let (Some(original), Some(yarn)) = (original, yarn.as_object_mut()) {
                    yarn.insert("original_max_position_embeddings".into(), original.into());
                }
                yarn
            }
            (None | Some("none" | "linear" | "longrope"), _, _) => Value::Null,
            (Some(other), _, _) => {
                let _ = dim;
                return Err(format!(
                    "`{}` is `{other}`, which is not known, or lacks its factor",
                    self.key("rope.scaling.type")
                ));
            }
        })
    }

    fn qwen_moe(&self, object: &mut Object, architecture: Architecture, experts: u64) -> Result<(), String> {
        let second = architecture == Architecture::Qwen2Moe;
        let width = match self.count("expert_feed_forward_length")? {
            Some(width) => width,
            None => self.size("blk.0.ffn_gate_exps.weight", 1)?,
        };
        put(
            object,
            [
                ("num_experts", experts.into()),
                ("num_experts_per_tok", self.need("expert_used_count")?.into()),
                ("moe_intermediate_size", width.into()),
                ("norm_topk_prob", (!second).into()),
                ("decoder_sparse_step", 1.into()),
                ("mlp_only_layers", json!([])),
                ("sliding_window", Value::Null),
                ("use_sliding_window", false.into()),
            ],
        );
        if second {
            let shared = match self.count("expert_shared_feed_forward_length")? {
                Some(shared) => shared,
                None => self.size("blk.0.ffn_gate_shexp.weight", 0)?,
            };
            put(object, [("shared_expert_intermediate_size", shared.into()), ("qkv_bias", true.into())]);
        }
        Ok(())
    }

    fn gemma(
        &self,
        object: &mut Object,
        architecture: Architecture,
        [hidden, heads, dim]: [u64; 3],
    ) -> Result<(), String> {
        let layers = self.need("block_count")?;
        if layers > 10_000 {
            return Err(format!("`{}` is {layers}, which is more than is believed", self.key("block_count")));
        }
        let third = architecture == Architecture::Gemma3;
        // The largest of both generations scale by what a head has of the width, not by its size.
        let largest = layers == if third { 62 } else { 46 };
        let usual = if largest { hidden / heads } else { dim };
        let said = self.float("attention.scale")?.filter(|s| s.is_finite() && *s > 0.0);
        let scalar = said.map_or(usual, |scale| (scale * scale).recip().round() as u64);
        // Every sixth layer sees everything, in the second generation every other.
        let mut period = if third { 6 } else { 2 };
        let mut types: Vec<bool> = Vec::new();
        match self.gguf.metadata().get(&self.key("attention.sliding_window_pattern")) {
            Some(super::meta::Meta::Bools(sliding)) if sliding.len() as u64 == layers => types = sliding.clone(),
            Some(super::meta::Meta::Count(n)) if *n > 0 => period = *n,
            _ => {}
        }
        if types.is_empty() {
            types = (1..=layers).map(|i| i % period != 0).collect();
        }
        let name = |sliding: &bool| if *sliding { "sliding_attention" } else { "full_attention" };
        let types: Vec<&str> = types.iter().map(name).collect();
        let cap = |key: &str| self.float(key).map(|v| v.map_or(Value::Null, Value::from));
        put(
            object,
            [
                ("hidden_activation", "gelu_pytorch_tanh".into()),
                ("hidden_act", "gelu_pytorch_tanh".into()),
                ("query_pre_attn_scalar", scalar.into()),
                ("attn_logit_softcapping", cap("attn_logit_softcapping")?),
                ("final_logit_softcapping", cap("final_logit_softcapping")?),
                ("sliding_window", self.count("attention.sliding_window")?.unwrap_or(4096).into()),
                ("layer_types", json!(types)),
            ],
        );
        if third {
            let theta = self.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
            put(object, [("rope_local_base_freq", theta.into())]);
            if self.float("rope.freq_base")?.is_none() {
                put(object, [("rope_theta", 1e6.into())]);
            }
        }
        Ok(())
    }

    fn phi3(&self, object: &mut Object, [hidden, heads]: [u64; 2]) -> Result<(), String> {
        let window = self.count("attention.sliding_window")?.filter(|w| *w > 0);
        let context = self.need("context_length")?;
        let original = self.count("rope.scaling.original_context_length")?.unwrap_or(context);
        let rotated = self.count("rope.dimension_count")?.unwrap_or(hidden / heads);
        let partial = rotated as f64 / (hidden / heads).max(1) as f64;
        put(
            object,
            [
                ("sliding_window", window.map_or(Value::Null, Value::from)),
                ("original_max_position_embeddings", original.into()),
                ("partial_rotary_factor", partial.into()),
            ],
        );
        object.remove("head_dim");
        Ok(())
    }

    fn deepseek(&self, object: &mut Object, experts: u64) -> Result<(), String> {
        let rope = self.need("rope.dimension_count")?;
        let key = match self.count("attention.key_length_mla")? {
            Some(n) => n,
            None => self.need("attention.key_length")?,
        };
        let value = match self.count("attention.value_length_mla")? {
            Some(n) => n,
            None => self.need("attention.value_length")?,
        };
        let nope =
            key.checked_sub(rope).ok_or_else(|| format!("a key of {key} features cannot have {rope} rotated ones"))?;
        let third = object.get("model_type").and_then(Value::as_str) == Some("deepseek_v3");
        let groups = self.count("expert_group_count")?.unwrap_or(if third && experts == 256 { 8 } else { 1 });
        let used = self.count("expert_group_used_count")?.unwrap_or(if third && experts == 256 { 4 } else { 1 });
        let heads = object.get("num_attention_heads").cloned().unwrap_or(Value::Null);
        put(
            object,
            [
                ("num_key_value_heads", heads),
                ("head_dim", rope.into()),
                ("q_lora_rank", self.count("attention.q_lora_rank")?.map_or(Value::Null, Value::from)),
                ("kv_lora_rank", self.need("attention.kv_lora_rank")?.into()),
                ("qk_rope_head_dim", rope.into()),
                ("qk_nope_head_dim", nope.into()),
                ("qk_head_dim", key.into()),
                ("v_head_dim", value.into()),
                ("n_routed_experts", experts.into()),
                ("n_shared_experts", self.count("expert_shared_count")?.unwrap_or(0).into()),
                ("num_experts_per_tok", self.need("expert_used_count")?.into()),
                ("moe_intermediate_size", self.need("expert_feed_forward_length")?.into()),
                ("first_k_dense_replace", self.count("leading_dense_block_count")?.unwrap_or(0).into()),
                ("routed_scaling_factor", self.float("expert_weights_scale")?.unwrap_or(1.0).into()),
                ("norm_topk_prob", self.flag("expert_weights_norm")?.unwrap_or(false).into()),
                ("n_group", groups.into()),
                ("topk_group", used.into()),
                ("rope_interleave", true.into()),
            ],
        );
        Ok(())
    }

    fn gpt2(&self, object: &mut Object) -> Result<(), String> {
        let (hidden, inner) = (self.need("embedding_length")?, self.need("feed_forward_length")?);
        put(
            object,
            [
                ("model_type", "gpt2".into()),
                ("architectures", json!(["GPT2LMHeadModel"])),
                ("n_embd", hidden.into()),
                ("n_inner", if inner == 4 * hidden { Value::Null } else { inner.into() }),
                ("n_layer", self.need("block_count")?.into()),
                ("n_head", self.need("attention.head_count")?.into()),
                ("n_positions", self.size("position_embd.weight", 0)?.into()),
                ("layer_norm_epsilon", self.float("attention.layer_norm_epsilon")?.unwrap_or(1e-5).into()),
                ("activation_function", "gelu_new".into()),
            ],
        );
        Ok(())
    }

    fn mamba(&self, object: &mut Object, architecture: Architecture) -> Result<(), String> {
        let (hidden, inner) = (self.need("embedding_length")?, self.need("ssm.inner_size")?);
        let rank = self.need("ssm.time_step_rank")?;
        let second = architecture == Architecture::Mamba2;
        put(
            object,
            [
                ("model_type", if second { "mamba2" } else { "mamba" }.into()),
                ("architectures", json!([if second { "Mamba2ForCausalLM" } else { "MambaForCausalLM" }])),
                ("hidden_size", hidden.into()),
                ("num_hidden_layers", self.need("block_count")?.into()),
                ("expand", (inner / hidden.max(1)).into()),
                ("state_size", self.need("ssm.state_size")?.into()),
                ("conv_kernel", self.need("ssm.conv_kernel")?.into()),
                ("layer_norm_epsilon", self.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5).into()),
                ("hidden_act", "silu".into()),
                ("use_bias", self.has("blk.0.ssm_in.bias").into()),
                ("use_conv_bias", self.has("blk.0.ssm_conv1d.bias").into()),
                ("residual_in_fp32", true.into()),
            ],
        );
        match second {
            true => put(
                object,
                [
                    ("num_heads", rank.into()),
                    ("head_dim", (inner / rank.max(1)).into()),
                    ("n_groups", self.count("ssm.group_count")?.unwrap_or(1).into()),
                    ("time_step_limit", json!([0.0, { "__float__": "Infinity" }])),
                    ("chunk_size", 256.into()),
                ],
            ),
            false => put(object, [("intermediate_size", inner.into()), ("time_step_rank", rank.into())]),
        }
        Ok(())
    }

    fn bert(&self, object: &mut Object) -> Result<(), String> {
        put(
            object,
            [
                ("model_type", "bert".into()),
                ("architectures", json!(["BertModel"])),
                ("hidden_size", self.need("embedding_length")?.into()),
                ("intermediate_size", self.need("feed_forward_length")?.into()),
                ("num_hidden_layers", self.need("block_count")?.into()),
                ("num_attention_heads", self.need("attention.head_count")?.into()),
                ("max_position_embeddings", self.size("position_embd.weight", 0)?.into()),
                ("type_vocab_size", self.size("token_types.weight", 0)?.into()),
                ("layer_norm_eps", self.float("attention.layer_norm_epsilon")?.unwrap_or(1e-12).into()),
                ("hidden_act", "gelu".into()),
            ],
        );
        Ok(())
    }

    fn t5(&self, object: &mut Object) -> Result<(), String> {
        let layers = self.need("block_count")?;
        let gated = self.has("enc.blk.0.ffn_gate.weight");
        put(
            object,
            [
                ("model_type", "t5".into()),
                ("architectures", json!(["T5ForConditionalGeneration"])),
                ("is_encoder_decoder", true.into()),
                ("d_model", self.need("embedding_length")?.into()),
                ("d_ff", self.need("feed_forward_length")?.into()),
                ("d_kv", self.need("attention.key_length")?.into()),
                ("num_heads", self.need("attention.head_count")?.into()),
                ("num_layers", layers.into()),
                ("num_decoder_layers", self.count("decoder_block_count")?.unwrap_or(layers).into()),
                ("layer_norm_epsilon", self.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6).into()),
                (
                    "relative_attention_num_buckets",
                    self.count("attention.relative_buckets_count")?.unwrap_or(32).into(),
                ),
                (
                    "relative_attention_max_distance",
                    self.count("attention.relative_max_distance")?.unwrap_or(128).into(),
                ),
                ("feed_forward_proj", if gated { "gated-gelu" } else { "relu" }.into()),
                ("is_gated_act", gated.into()),
                ("dense_act_fn", if gated { "gelu_new" } else { "relu" }.into()),
                ("decoder_start_token_id", self.count("decoder_start_token_id")?.unwrap_or(0).into()),
            ],
        );
        Ok(())
    }
}
