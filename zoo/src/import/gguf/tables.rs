//! Which tensor of a GGUF file is which of Hugging Face's, and what llama.cpp's converter did to it
//! (`conversion/*.py` and `gguf-py/gguf/tensor_mapping.py` in llama.cpp).
//!
//! One table serves both directions. `{}` stands for a number, the layer's or the expert's; endings
//! `.weight` and `.bias` are kept unless a row has them.

/// What the converter did, to be undone on import and done on export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// Rows of query heads went from two halves to pairs side by side, as its rotation wants them.
    Queries,
    /// The same for the heads of keys.
    Keys,
    /// 1 was added: Gemma's norms scale by `1 + weight`.
    Shifted,
    /// The experts of a layer were stacked.
    Stacked,
    /// `-exp(x)`.
    NegatedExp,
    /// `[D, 1, K]` became `[D, K]`.
    Squeezed,
    /// `[N]` became `[N, 1]`.
    Column,
    /// `-exp(x)`, and `[N]` became `[N, 1]`.
    NegatedExpColumn,
    /// `[N]` became `[Groups, N / Groups]`.
    Grouped,
    /// `[1, N]` may have become `[N]`.
    OneRow,
    /// Rows became columns: GPT-2's layers are stored transposed.
    Transposed,
    /// Split by head into keys, transposed, and values: DeepSeek's `kv_b_proj`.
    SplitKeysValues,
}

/// A tensor's name in both worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// In the GGUF file.
    pub gguf: &'static str,
    /// In Hugging Face's checkpoint.
    pub hf: &'static str,
    /// What the converter did.
    pub change: Change,
}

/// An architecture that both worlds have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen2Moe,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
    Gpt2,
    Deepseek2,
    Mamba,
    Mamba2,
    Bert,
    T5,
}

use Architecture::*;

impl Architecture {
    /// Every architecture with its name in GGUF files.
    pub const ALL: [(Architecture, &'static str); 14] = [
        (Llama, "llama"),
        (Qwen2, "qwen2"),
        (Qwen2Moe, "qwen2moe"),
        (Qwen3, "qwen3"),
        (Qwen3Moe, "qwen3moe"),
        (Gemma2, "gemma2"),
        (Gemma3, "gemma3"),
        (Phi3, "phi3"),
        (Gpt2, "gpt2"),
        (Deepseek2, "deepseek2"),
        (Mamba, "mamba"),
        (Mamba2, "mamba2"),
        (Bert, "bert"),
        (T5, "t5"),
    ];

    /// The name in GGUF files.
    pub fn name(self) -> &'static str {
        Architecture::ALL.iter().find(|(a, _)| *a == self).map_or("", |(_, name)| name)
    }

    /// The architecture of a name in GGUF files.
    pub fn parse(name: &str) -> Option<Architecture> {
        Architecture::ALL.iter().find(|(_, n)| *n == name).map(|(a, _)| *a)
    }

    /// The architecture of a `model_type` of Hugging Face's.
    pub fn of_model_type(model_type: &str) -> Option<Architecture> {
        Some(match model_type {
            "llama" | "mistral" | "mixtral" => Llama,
            "qwen2" => Qwen2,
            "qwen2_moe" => Qwen2Moe,
            "qwen3" => Qwen3,
            "qwen3_moe" => Qwen3Moe,
            "gemma2" => Gemma2,
            "gemma3_text" => Gemma3,
            "phi3" => Phi3,
            "gpt2" => Gpt2,
            "deepseek_v2" | "deepseek_v3" => Deepseek2,
            "mamba" => Mamba,
            "mamba2" => Mamba2,
            "bert" => Bert,
            "t5" => T5,
            _ => return None,
        })
    }

    /// Its tensors. Of two rows that fit a name, the first counts.
    pub fn rows(self) -> Vec<Row> {
        let decoder = |change: [Change; 3]| decoder(change[0], change[1], change[2]);
        let plain = [Change::Same; 3];
        match self {
            Llama => [decoder([Change::Queries, Change::Keys, Change::Same]), rows(MIXTRAL)].concat(),
            Qwen2 | Qwen3 => [decoder(plain), rows(HEAD_NORMS)].concat(),
            Phi3 => [rows(PHI), decoder(plain)].concat(),
            Qwen2Moe | Qwen3Moe => [decoder(plain), rows(HEAD_NORMS), rows(MOE)].concat(),
            Gemma2 | Gemma3 => {
                let norms = HEAD_NORMS.iter().chain(GEMMA).map(|(g, h, _)| (*g, *h, Change::Shifted));
                let norms = norms.map(|(gguf, hf, change)| Row { gguf, hf, change });
                // Gemma's own names come first: its `ffn_norm` is another one than others'.
                norms.chain(decoder([Change::Same, Change::Same, Change::Shifted])).collect()
            }
            Deepseek2 => [rows(MLA), decoder(plain), rows(MOE)].concat(),
            Gpt2 => rows(GPT2),
            Mamba => [rows(MAMBA), rows(MAMBA_BOTH)].concat(),
            Mamba2 => [rows(MAMBA2), rows(MAMBA_BOTH)].concat(),
            Bert => rows(BERT),
            T5 => rows(T5_ROWS),
        }
    }
}

type Plain = (&'static str, &'static str, Change);

fn rows(table: &[Plain]) -> Vec<Row> {
    table.iter().map(|(gguf, hf, change)| Row { gguf, hf, change: *change }).collect()
}

/// What Llama's kin have in common.
fn decoder(queries: Change, keys: Change, norms: Change) -> Vec<Row> {
    let same = Change::Same;
    rows(&[
        ("token_embd", "model.embed_tokens", same),
        ("output_norm", "model.norm", norms),
        ("output", "lm_head", same),
        ("blk.{}.attn_norm", "model.layers.{}.input_layernorm", norms),
        ("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", queries),
        ("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", keys),
        ("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", same),
        ("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj", same),
        ("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", norms),
        ("blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj", same),
        ("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj", same),
        ("blk.{}.ffn_up", "model.layers.{}.mlp.up_proj", same),
    ])
}

const PHI: &[Plain] = &[
    ("blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj", Change::Same),
    ("blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", Change::Same),
];

const HEAD_NORMS: &[Plain] = &[
    ("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", Change::Same),
    ("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", Change::Same),
];

const GEMMA: &[Plain] = &[
    ("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", Change::Same),
    ("blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm", Change::Same),
    ("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", Change::Same),
];

const MIXTRAL: &[Plain] = &[
    ("blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate", Change::Same),
    ("blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.{}.w1", Change::Stacked),
    ("blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.{}.w2", Change::Stacked),
    ("blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.{}.w3", Change::Stacked),
    // As files of before April 2024 have them.
    ("blk.{}.ffn_gate.{}", "model.layers.{}.block_sparse_moe.experts.{}.w1", Change::Same),
    ("blk.{}.ffn_down.{}", "model.layers.{}.block_sparse_moe.experts.{}.w2", Change::Same),
    ("blk.{}.ffn_up.{}", "model.layers.{}.block_sparse_moe.experts.{}.w3", Change::Same),
];

const MOE: &[Plain] = &[
    ("blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate", Change::Same),
    ("blk.{}.ffn_gate_exps", "model.layers.{}.mlp.experts.{}.gate_proj", Change::Stacked),
    ("blk.{}.ffn_down_exps", "model.layers.{}.mlp.experts.{}.down_proj", Change::Stacked),
    ("blk.{}.ffn_up_exps", "model.layers.{}.mlp.experts.{}.up_proj", Change::Stacked),
    ("blk.{}.ffn_gate_inp_shexp", "model.layers.{}.mlp.shared_expert_gate", Change::OneRow),
    ("blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_expert.gate_proj", Change::Same),
    ("blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_expert.down_proj", Change::Same),
    ("blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_expert.up_proj", Change::Same),
];

const MLA: &[Plain] = &[
    ("blk.{}.attn_q_a", "model.layers.{}.self_attn.q_a_proj", Change::Same),
    ("blk.{}.attn_q_b", "model.layers.{}.self_attn.q_b_proj", Change::Same),
    ("blk.{}.attn_q_a_norm", "model.layers.{}.self_attn.q_a_layernorm", Change::Same),
    ("blk.{}.attn_kv_a_mqa", "model.layers.{}.self_attn.kv_a_proj_with_mqa", Change::Same),
    ("blk.{}.attn_kv_a_norm", "model.layers.{}.self_attn.kv_a_layernorm", Change::Same),
    ("blk.{}.attn_k_b.weight", "model.layers.{}.self_attn.kv_b_proj.weight", Change::SplitKeysValues),
    // As files of before April 2025 have it.
    ("blk.{}.attn_kv_b", "model.layers.{}.self_attn.kv_b_proj", Change::Same),
    ("blk.{}.exp_probs_b.bias", "model.layers.{}.mlp.gate.e_score_correction_bias", Change::Same),
    ("blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_experts.gate_proj", Change::Same),
    ("blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_experts.down_proj", Change::Same),
    ("blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_experts.up_proj", Change::Same),
];

const GPT2: &[Plain] = &[
    ("token_embd", "transformer.wte", Change::Same),
    ("position_embd", "transformer.wpe", Change::Same),
    ("output_norm", "transformer.ln_f", Change::Same),
    ("output", "lm_head", Change::Same),
    ("blk.{}.attn_norm", "transformer.h.{}.ln_1", Change::Same),
    ("blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn", Change::Transposed),
    ("blk.{}.attn_output", "transformer.h.{}.attn.c_proj", Change::Transposed),
    ("blk.{}.ffn_norm", "transformer.h.{}.ln_2", Change::Same),
    ("blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc", Change::Transposed),
    ("blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj", Change::Transposed),
];

const MAMBA_BOTH: &[Plain] = &[
    ("token_embd", "backbone.embeddings", Change::Same),
    ("output_norm", "backbone.norm_f", Change::Same),
    ("output", "lm_head", Change::Same),
    ("blk.{}.attn_norm", "backbone.layers.{}.norm", Change::Same),
    ("blk.{}.ssm_in", "backbone.layers.{}.mixer.in_proj", Change::Same),
    ("blk.{}.ssm_conv1d.weight", "backbone.layers.{}.mixer.conv1d.weight", Change::Squeezed),
    ("blk.{}.ssm_conv1d", "backbone.layers.{}.mixer.conv1d", Change::Same),
    ("blk.{}.ssm_out", "backbone.layers.{}.mixer.out_proj", Change::Same),
];

const MAMBA: &[Plain] = &[
    ("blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", Change::NegatedExp),
    ("blk.{}.ssm_d", "backbone.layers.{}.mixer.D", Change::Same),
    ("blk.{}.ssm_x", "backbone.layers.{}.mixer.x_proj", Change::Same),
    ("blk.{}.ssm_dt", "backbone.layers.{}.mixer.dt_proj", Change::Same),
];

const MAMBA2: &[Plain] = &[
    ("blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", Change::NegatedExpColumn),
    ("blk.{}.ssm_d", "backbone.layers.{}.mixer.D", Change::Column),
    ("blk.{}.ssm_dt.bias", "backbone.layers.{}.mixer.dt_bias", Change::Same),
    ("blk.{}.ssm_norm", "backbone.layers.{}.mixer.norm", Change::Grouped),
];

const BERT: &[Plain] = &[
    ("token_embd", "embeddings.word_embeddings", Change::Same),
    ("position_embd", "embeddings.position_embeddings", Change::Same),
    ("token_types", "embeddings.token_type_embeddings", Change::Same),
    ("token_embd_norm", "embeddings.LayerNorm", Change::Same),
    ("blk.{}.attn_q", "encoder.layer.{}.attention.self.query", Change::Same),
    ("blk.{}.attn_k", "encoder.layer.{}.attention.self.key", Change::Same),
    ("blk.{}.attn_v", "encoder.layer.{}.attention.self.value", Change::Same),
    ("blk.{}.attn_output", "encoder.layer.{}.attention.output.dense", Change::Same),
    ("blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm", Change::Same),
    ("blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense", Change::Same),
    ("blk.{}.ffn_down", "encoder.layer.{}.output.dense", Change::Same),
    ("blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm", Change::Same),
];

const T5_ROWS: &[Plain] = &[
    ("token_embd", "shared", Change::Same),
    ("output", "lm_head", Change::Same),
    ("enc.output_norm", "encoder.final_layer_norm", Change::Same),
    ("enc.blk.{}.attn_q", "encoder.block.{}.layer.0.SelfAttention.q", Change::Same),
    ("enc.blk.{}.attn_k", "encoder.block.{}.layer.0.SelfAttention.k", Change::Same),
    ("enc.blk.{}.attn_v", "encoder.block.{}.layer.0.SelfAttention.v", Change::Same),
    ("enc.blk.{}.attn_o", "encoder.block.{}.layer.0.SelfAttention.o", Change::Same),
    ("enc.blk.{}.attn_rel_b", "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias", Change::Same),
    ("enc.blk.{}.attn_norm", "encoder.block.{}.layer.0.layer_norm", Change::Same),
    ("enc.blk.{}.ffn_norm", "encoder.block.{}.layer.1.layer_norm", Change::Same),
    ("enc.blk.{}.ffn_gate", "encoder.block.{}.layer.1.DenseReluDense.wi_0", Change::Same),
    ("enc.blk.{}.ffn_down", "encoder.block.{}.layer.1.DenseReluDense.wo", Change::Same),
    ("dec.output_norm", "decoder.final_layer_norm", Change::Same),
    ("dec.blk.{}.attn_q", "decoder.block.{}.layer.0.SelfAttention.q", Change::Same),
    ("dec.blk.{}.attn_k", "decoder.block.{}.layer.0.SelfAttention.k", Change::Same),
    ("dec.blk.{}.attn_v", "decoder.block.{}.layer.0.SelfAttention.v", Change::Same),
    ("dec.blk.{}.attn_o", "decoder.block.{}.layer.0.SelfAttention.o", Change::Same),
    ("dec.blk.{}.attn_rel_b", "decoder.block.{}.layer.0.SelfAttention.relative_attention_bias", Change::Same),
    ("dec.blk.{}.attn_norm", "decoder.block.{}.layer.0.layer_norm", Change::Same),
    ("dec.blk.{}.cross_attn_q", "decoder.block.{}.layer.1.EncDecAttention.q", Change::Same),
    ("dec.blk.{}.cross_attn_k", "decoder.block.{}.layer.1.EncDecAttention.k", Change::Same),
    ("dec.blk.{}.cross_attn_v", "decoder.block.{}.layer.1.EncDecAttention.v", Change::Same),
    ("dec.blk.{}.cross_attn_o", "decoder.block.{}.layer.1.EncDecAttention.o", Change::Same),
    ("dec.blk.{}.cross_attn_norm", "decoder.block.{}.layer.1.layer_norm", Change::Same),
    ("dec.blk.{}.ffn_norm", "decoder.block.{}.layer.2.layer_norm", Change::Same),
    ("dec.blk.{}.ffn_gate", "decoder.block.{}.layer.2.DenseReluDense.wi_0", Change::Same),
    ("dec.blk.{}.ffn_down", "decoder.block.{}.layer.2.DenseReluDense.wo", Change::Same),
    // `wi` where there is no gate, `wi_1` beside one: `names` picks.
    ("enc.blk.{}.ffn_up", "encoder.block.{}.layer.1.DenseReluDense.wi", Change::Same),
    ("dec.blk.{}.ffn_up", "decoder.block.{}.layer.2.DenseReluDense.wi", Change::Same),
    ("enc.blk.{}.ffn_up", "encoder.block.{}.layer.1.DenseReluDense.wi_1", Change::Same),
    ("dec.blk.{}.ffn_up", "decoder.block.{}.layer.2.DenseReluDense.wi_1", Change::Same),
];

/// The numbers of a name that fits a pattern, and what follows the pattern: nothing, `.weight` or
/// `.bias`.
pub fn fit<'n>(pattern: &str, name: &'n str) -> Option<(Vec<usize>, &'n str)> {
    let mut numbers = Vec::new();
    let mut rest = name;
    for (i, part) in pattern.split('.').enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let end = rest.find('.').unwrap_or(rest.len());
        let (found, after) = rest.split_at(end);
        match part {
            "{}" if !found.is_empty() && found.bytes().all(|b| b.is_ascii_digit()) => numbers.push(found.parse().ok()?),
            literal if literal == found => {}
            _ => return None,
        }
        rest = after;
    }
    matches!(rest, "" | ".weight" | ".bias").then_some((numbers, rest))
}

/// A pattern with its numbers in place.
pub fn fill(pattern: &str, numbers: &[usize], suffix: &str) -> String {
    let mut numbers = numbers.iter();
    let part = |part: &str| match part {
        "{}" => numbers.next().map_or("{}".into(), usize::to_string),
        literal => literal.to_string(),
    };
    pattern.split('.').map(part).collect::<Vec<_>>().join(".") + suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        assert_eq!(fit("blk.{}.attn_q", "blk.12.attn_q.weight"), Some((vec![12], ".weight")));
        assert_eq!(fit("blk.{}.ssm_a", "blk.0.ssm_a"), Some((vec![0], "")));
        assert_eq!(fit("a.{}.b.{}", "a.1.b.2.bias"), Some((vec![1, 2], ".bias")));
        for no in [
            "blk.x.attn_q",
            "blk.1.attn_q_norm.weight",
            "blk.1",
            "blk.1.attn_q.scale",
            "blk..attn_q",
            "blk.99999999999999999999999.attn_q",
        ] {
            assert_eq!(fit("blk.{}.attn_q", no), None, "{no}");
        }
        assert_eq!(fill("a.{}.b.{}", &[1, 2], ".bias"), "a.1.b.2.bias");
    }

    #[test]
    fn architectures_have_names() {
        for (architecture, name) in Architecture::ALL {
            assert_eq!((Architecture::parse(name), architecture.name()), (Some(architecture), name));
            assert!(!architecture.rows().is_empty());
        }
    }
}
