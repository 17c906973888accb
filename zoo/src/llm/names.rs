//! Names of tensors that differ between files of one architecture.
//!
//! A model's parameters bear the names that Hugging Face's class for causal models gives them. Files
//! differ from these in ways that mean nothing: a file may hold the model without its head (`h.0.ln_1`
//! for `transformer.h.0.ln_1`), the text part of a larger model (`language_model.model.layers`), or
//! tensors that are no parameters (masks of old versions of GPT-2, frequencies of rotation), or that
//! are there twice (the head of a tied model). [`Fitted`] shows a source under the model's names,
//! without the rest. What it does not know stays as it is, for strict loading to complain of.

use mobilis_runtime::checkpoint::{CheckpointError, Raw, Source, TensorInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Prefixes of parts of larger models, and what they are in the part alone.
const PARTS: [(&str, &str); 4] = [
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.lm_head.", "lm_head."),
];
/// Prefixes of all but the head.
const BASES: [&str; 3] = ["model.", "transformer.", "backbone."];
/// Ends of names that are no parameters of a decoder: constants, and layers that attend to an encoder.
const CONSTANTS: [&str; 4] = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", ".masked_bias"];
const ELSEWHERE: [&str; 4] = [".crossattention.", ".ln_cross_attn.", "vision_tower.", "multi_modal_projector."];

/// A source under a model's names.
#[derive(Debug)]
pub struct Fitted<'a> {
    source: &'a dyn Source,
    /// The source's name for each name.
    names: BTreeMap<String, String>,
}

impl<'a> Fitted<'a> {
    /// The source under the names `wanted`.
    pub fn new(source: &'a dyn Source, wanted: &BTreeSet<&str>) -> Fitted<'a> {
        let mut names = BTreeMap::new();
        for own in source.names() {
            let name = fitted(own, wanted);
            let needless =
                |n: &str| CONSTANTS.iter().any(|end| n.ends_with(end)) || ELSEWHERE.iter().any(|part| n.contains(part));
            // A name that is there as it is goes before one that only becomes it.
            if wanted.contains(own) {
                names.insert(own.to_string(), own.to_string());
            } else if wanted.contains(&*name) || !needless(own) {
                names.entry(name).or_insert_with(|| own.to_string());
            }
        }
        Fitted { source, names }
    }

    /// The same without a tensor.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.names.remove(name);
        self
    }
}

/// The model's name of a tensor of a file.
fn fitted(own: &str, wanted: &BTreeSet<&str>) -> String {
    let part = PARTS.iter().find_map(|(part, alone)| own.strip_prefix(part).map(|rest| format!("{alone}{rest}")));
    let name = part.unwrap_or_else(|| own.to_string());
    if wanted.contains(&*name) {
        return name;
    }
    let mut whole = BASES.iter().map(|base| format!("{base}{name}"));
    whole.find(|n| wanted.contains(&**n)).unwrap_or(name)
}

impl Source for Fitted<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.source.info(self.names.get(name)?)
    }

    fn has_values(&self) -> bool {
        self.source.has_values()
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        match self.names.get(name) {
            Some(own) => self.source.raw(own),
            None => self.source.raw(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_other_names_fit() {
        let wanted = BTreeSet::from(["model.layers.0.w", "transformer.h.0.w", "lm_head.weight"]);
        for (own, name) in [
            ("model.layers.0.w", "model.layers.0.w"),
            ("layers.0.w", "model.layers.0.w"),
            ("h.0.w", "transformer.h.0.w"),
            ("language_model.model.layers.0.w", "model.layers.0.w"),
            ("model.language_model.layers.0.w", "model.layers.0.w"),
            ("language_model.lm_head.weight", "lm_head.weight"),
            ("other.weight", "other.weight"),
        ] {
            assert_eq!(fitted(own, &wanted), name, "{own}");
        }
    }
}
