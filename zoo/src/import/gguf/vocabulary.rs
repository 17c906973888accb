//! The tokenizer's part of a GGUF file's metadata.

use super::meta::{Meta, Metadata};
use crate::text::{GgufVocabulary, TokenType};

impl Metadata {
    /// The vocabulary.
    ///
    /// # Errors
    /// None there, values of another kind, token types that are not known.
    pub fn vocabulary(&self) -> Result<GgufVocabulary, String> {
        let key = |key: &str| format!("tokenizer.ggml.{key}");
        let texts = |name: &str| match self.get(&key(name)) {
            None => Ok(Vec::new()),
            Some(Meta::Texts(v)) => Ok(v.clone()),
            Some(other) => Err(format!("`{}` is {}, not a list of texts", key(name), other.kind())),
        };
        let id = |name: &str| match self.count(&key(name))? {
            None => Ok(None),
            Some(id) => u32::try_from(id).map(Some).map_err(|_| format!("`{}` is {id}, which is no id", key(name))),
        };
        let text = |name: &str| self.text(name).map(|v| v.map(String::from));
        let Some(model) = text(&key("model"))? else {
            return Err("it has no vocabulary: its metadata lacks `tokenizer.ggml.model`".into());
        };
        let scores = match self.get(&key("scores")) {
            None => Vec::new(),
            Some(Meta::Floats(v)) => v.clone(),
            Some(other) => return Err(format!("`{}` is {}, not a list of numbers", key("scores"), other.kind())),
        };
        let kind = |v: &i64| u64::try_from(*v).ok().and_then(TokenType::from_number);
        let types = match self.get(&key("token_type")) {
            None => Vec::new(),
            Some(Meta::Ints(v)) => match v.iter().map(|v| kind(v).ok_or(v)).collect::<Result<_, _>>() {
                Ok(types) => types,
                Err(v) => return Err(format!("`{}` has {v}, which is no type of token", key("token_type"))),
            },
            Some(other) => {
                return Err(format!("`{}` is {}, not a list of whole numbers", key("token_type"), other.kind()));
            }
        };
        let charsmap = match self.get(&key("precompiled_charsmap")) {
            Some(Meta::Bytes(v)) => v.clone(),
            _ => Vec::new(),
        };
        let mut templates = std::collections::BTreeMap::new();
        for (name, value) in &self.0 {
            let rest = name.strip_prefix("tokenizer.chat_template").filter(|r| r.is_empty() || r.starts_with('.'));
            if let (Some(rest), Meta::Text(template)) = (rest, value) {
                let name = rest.strip_prefix('.').unwrap_or("default");
                templates.insert(name.to_string(), template.clone());
            }
        }
        Ok(GgufVocabulary {
            architecture: text("general.architecture")?.unwrap_or_default(),
            model,
            pre: text(&key("pre"))?,
            tokens: texts("tokens")?,
            scores,
            types,
            merges: texts("merges")?,
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            unknown: id("unknown_token_id")?,
            separator: id("seperator_token_id")?,
            padding: id("padding_token_id")?,
            cls: id("cls_token_id")?,
            mask: id("mask_token_id")?,
            add_bos: self.flag(&key("add_bos_token"))?,
            add_eos: self.flag(&key("add_eos_token"))?,
            add_space_prefix: self.flag(&key("add_space_prefix"))?,
            remove_extra_whitespaces: self.flag(&key("remove_extra_whitespaces"))?,
            charsmap,
            templates,
        })
    }
}
