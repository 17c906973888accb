//! DistilBERT: a small BERT without token types, under other names.
//!
//! Sanh et al. 2019 (<https://arxiv.org/abs/1910.01108>), as Hugging Face's
//! `modeling_distilbert.py`. The layers are [`super::bert`]'s; what differs is what settings
//! and tensors are called, and that the classifier's first layer has relu where BERT's pooler has a
//! hyperbolic tangent.

use super::bert::{self, BertAxes, BertWithHeads, Heads};
use super::config::{Config, ConfigError};
use mobilis_runtime::nn::Activation;
use serde_json::{Value, json};

/// BERT's names of settings, and DistilBERT's.
const SETTINGS: [(&str, &str); 7] = [
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_hidden_layers", "n_layers"),
    ("intermediate_size", "hidden_dim"),
    ("hidden_act", "activation"),
    ("vocab_size", "vocab_size"),
    ("max_position_embeddings", "max_position_embeddings"),
];

/// BERT's names of tensors, and DistilBERT's; the first that fits counts.
const TENSORS: [(&str, &str); 14] = [
    ("attention.self.query", "attention.q_lin"),
    ("attention.self.key", "attention.k_lin"),
    ("attention.self.value", "attention.v_lin"),
    ("attention.output.dense", "attention.out_lin"),
    ("attention.output.LayerNorm", "sa_layer_norm"),
    ("intermediate.dense", "ffn.lin1"),
    ("output.dense", "ffn.lin2"),
    ("output.LayerNorm", "output_layer_norm"),
    ("bert.pooler.dense", "pre_classifier"),
    ("cls.predictions.transform.dense", "vocab_transform"),
    ("cls.predictions.transform.LayerNorm", "vocab_layer_norm"),
    ("cls.predictions.decoder", "vocab_projector"),
    ("cls.predictions.bias", "vocab_projector.bias"),
    ("bert.embeddings", "distilbert.embeddings"),
];

/// DistilBERT's name of one of BERT's tensors.
pub fn name(bert: &str) -> String {
    let name = TENSORS.iter().find(|(from, _)| bert.contains(from));
    let name = name.map_or_else(|| bert.to_string(), |(from, to)| bert.replacen(from, to, 1));
    name.replacen("bert.encoder.layer.", "distilbert.transformer.layer.", 1)
}

/// The configuration in BERT's words.
///
/// # Errors
/// Positions of sines, whose table BERT does not have.
pub fn settings(config: &Config) -> Result<Config, ConfigError> {
    if config.flag("sinusoidal_pos_embds", false)? && config.get("max_position_embeddings").is_none() {
        return Err(config.missing("max_position_embeddings"));
    }
    let mut value = config.value().clone();
    for (bert, own) in SETTINGS {
        match config.get(own) {
            Some(found) => value[bert] = found.clone(),
            None => return Err(config.missing(own)),
        }
    }
    // There are no types; one row is what the axis would have.
    value["type_vocab_size"] = json!(1);
    value["layer_norm_eps"] = json!(1e-12);
    if let Value::Object(object) = &mut value {
        object.remove("position_embedding_type");
    }
    Ok(Config::new("config.json", value))
}

/// Which heads a checkpoint has, by what the configuration calls the model and by its tensors.
pub fn heads(architecture: &str, has: impl Fn(&str) -> bool) -> Heads {
    let heads = Heads::of(architecture, &has);
    Heads { pooler: has("pre_classifier"), predictions: heads.predictions || has("vocab_transform"), ..heads }
}

/// The module of a configuration in BERT's words.
///
/// # Errors
/// As for [`bert::bert`].
pub fn distilbert<A: BertAxes>(config: &Config, heads: Heads) -> Result<BertWithHeads<A>, ConfigError> {
    let mut module = bert::bert::<A>(config, heads)?;
    module.bert.embeddings.token_type_embeddings = None;
    module.bert.pooler_activation = Activation::Relu;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names() {
        for (bert, own) in [
            ("bert.embeddings.LayerNorm.bias", "distilbert.embeddings.LayerNorm.bias"),
            ("bert.encoder.layer.3.attention.self.key.weight", "distilbert.transformer.layer.3.attention.k_lin.weight"),
            (
                "bert.encoder.layer.3.attention.output.dense.bias",
                "distilbert.transformer.layer.3.attention.out_lin.bias",
            ),
            ("bert.encoder.layer.3.output.dense.weight", "distilbert.transformer.layer.3.ffn.lin2.weight"),
            ("bert.encoder.layer.0.output.LayerNorm.bias", "distilbert.transformer.layer.0.output_layer_norm.bias"),
            ("bert.pooler.dense.weight", "pre_classifier.weight"),
            ("cls.predictions.bias", "vocab_projector.bias"),
            ("classifier.weight", "classifier.weight"),
        ] {
            assert_eq!(name(bert), own);
        }
    }
}
