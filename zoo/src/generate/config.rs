//! `generation_config.json`: how a checkpoint's makers generate with it.
//!
//! The keys and their meaning are those of `transformers`' `GenerationConfig`. The file is the model's,
//! so keys that are not known are kept aside and tolerated; a known key with a value of the wrong kind is
//! an error all the same.

use serde_json::{Map, Value};

use super::options::GenerateOptions;

/// An option that is not what it has to be.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OptionError {
    /// A value that means nothing.
    #[error("`{name}` has to be {expected}, found {found}")]
    Range {
        /// The option.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A value of another kind.
    #[error("{origin}: `{name}` has to be {expected}, found {found}")]
    Kind {
        /// The file.
        origin: String,
        /// The key.
        name: String,
        /// The kind that it has to have.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

/// What a checkpoint says about generating. Fields have the names of the file's keys; nothing where the
/// file has no such key, or null.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "each is documented as the option of the same name")]
pub struct GenerationConfig {
    pub do_sample: Option<bool>,
    pub temperature: Option<f64>,
    pub top_k: Option<u64>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub no_repeat_ngram_size: Option<u64>,
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    pub suppress_tokens: Option<Vec<u32>>,
    pub begin_suppress_tokens: Option<Vec<u32>>,
    pub forced_bos_token_id: Option<u32>,
    pub forced_eos_token_id: Option<u32>,
    pub min_new_tokens: Option<u64>,
    pub max_new_tokens: Option<u64>,
    pub max_length: Option<u64>,
    pub num_beams: Option<u64>,
    pub length_penalty: Option<f64>,
    pub early_stopping: Option<Value>,
    pub bos_token_id: Option<u32>,
    /// One token or several.
    pub eos_token_id: Option<Vec<u32>>,
    pub pad_token_id: Option<u32>,
    pub decoder_start_token_id: Option<u32>,
    pub stop_strings: Option<Vec<String>>,
    /// Keys that are not known here.
    pub others: Map<String, Value>,
}

/// The `top_k` that `transformers` takes for sampling where nothing is said.
const DEFAULT_TOP_K: u64 = 50;

impl GenerationConfig {
    /// Reads a file's JSON; `origin` is for errors.
    ///
    /// # Errors
    /// Known keys with values of the wrong kind.
    pub fn from_json(value: &Value, origin: &str) -> Result<GenerationConfig, OptionError> {
        let Value::Object(map) = value else {
            return Err(kind(origin, "generation_config", "an object", value));
        };
        let mut config = GenerationConfig::default();
        for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
            let c = &mut config;
            let read = Read { origin, name, value };
            match name.as_str() {
                "do_sample" => c.do_sample = Some(read.flag()?),
                "temperature" => c.temperature = Some(read.number()?),
                "top_k" => c.top_k = Some(read.count()?),
                "top_p" => c.top_p = Some(read.number()?),
                "min_p" => c.min_p = Some(read.number()?),
                "repetition_penalty" => c.repetition_penalty = Some(read.number()?),
                "no_repeat_ngram_size" => c.no_repeat_ngram_size = Some(read.count()?),
                "bad_words_ids" => c.bad_words_ids = Some(read.sequences()?),
                "suppress_tokens" => c.suppress_tokens = Some(read.ids()?),
                "begin_suppress_tokens" => c.begin_suppress_tokens = Some(read.ids()?),
                "forced_bos_token_id" => c.forced_bos_token_id = Some(read.id()?),
                "forced_eos_token_id" => c.forced_eos_token_id = read.ids()?.first().copied(),
                "min_new_tokens" => c.min_new_tokens = Some(read.count()?),
                "max_new_tokens" => c.max_new_tokens = Some(read.count()?),
                "max_length" => c.max_length = Some(read.count()?),
                "num_beams" => c.num_beams = Some(read.count()?),
                "length_penalty" => c.length_penalty = Some(read.number()?),
                "early_stopping" => c.early_stopping = Some(value.clone()),
                "bos_token_id" => c.bos_token_id = read.ids()?.first().copied(),
                "eos_token_id" => c.eos_token_id = Some(read.ids()?),
                "pad_token_id" => c.pad_token_id = read.ids()?.first().copied(),
                "decoder_start_token_id" => c.decoder_start_token_id = read.ids()?.first().copied(),
                "stop_strings" => c.stop_strings = Some(read.texts()?),
                _ => {
                    c.others.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(config)
    }

    /// The options that the file means, as `transformers` would generate with it: sampling where
    /// `do_sample` says so, with a `top_k` of 50 where none is given.
    pub fn options(&self) -> GenerateOptions {
        let d = GenerateOptions::default();
        let samples = self.do_sample.unwrap_or(false);
        let count = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
        let real = |n: Option<f64>, or: f32| n.map_or(or, |n| n as f32);
        GenerateOptions {
            max_new_tokens: count(self.max_new_tokens).unwrap_or(d.max_new_tokens),
            min_new_tokens: count(self.min_new_tokens).unwrap_or(0),
            temperature: if samples { real(self.temperature, 1.0) } else { 0.0 },
            top_k: if samples { count(Some(self.top_k.unwrap_or(DEFAULT_TOP_K))).unwrap_or(0) } else { 0 },
            top_p: if samples { real(self.top_p, 1.0) } else { 1.0 },
            min_p: if samples { real(self.min_p, 0.0) } else { 0.0 },
            repetition_penalty: real(self.repetition_penalty, 1.0),
            no_repeat_ngram_size: count(self.no_repeat_ngram_size).unwrap_or(0),
            bad_words: self.bad_words_ids.clone().unwrap_or_default(),
            suppress_tokens: self.suppress_tokens.clone().unwrap_or_default(),
            begin_suppress_tokens: self.begin_suppress_tokens.clone().unwrap_or_default(),
            forced_bos_token: self.forced_bos_token_id,
            forced_eos_token: self.forced_eos_token_id,
            stop_tokens: self.eos_token_id.clone().unwrap_or_default(),
            stop_strings: self.stop_strings.clone().unwrap_or_default(),
            ..d
        }
    }
}

fn kind(origin: &str, name: &str, expected: &'static str, value: &Value) -> OptionError {
    let text = value.to_string();
    let found = match text.char_indices().nth(60) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    };
    OptionError::Kind { origin: origin.to_owned(), name: name.to_owned(), expected, found }
}

/// A value that is being read.
struct Read<'a> {
    origin: &'a str,
    name: &'a str,
    value: &'a Value,
}

impl Read<'_> {
    fn wrong(&self, expected: &'static str) -> OptionError {
        kind(self.origin, self.name, expected, self.value)
    }

    fn flag(&self) -> Result<bool, OptionError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    fn number(&self) -> Result<f64, OptionError> {
        self.value.as_f64().ok_or_else(|| self.wrong("a number"))
    }

    fn count(&self) -> Result<u64, OptionError> {
        self.value.as_u64().ok_or_else(|| self.wrong("a whole number that is not negative"))
    }

    fn id(&self) -> Result<u32, OptionError> {
        token(self.value).ok_or_else(|| self.wrong("a token's id"))
    }

    fn ids(&self) -> Result<Vec<u32>, OptionError> {
        let list: Option<Vec<u32>> = match self.value {
            // -1 says "none" in some files.
            Value::Number(n) if n.as_i64() == Some(-1) => Some(Vec::new()),
            Value::Array(list) => list.iter().map(token).collect(),
            one => token(one).map(|id| vec![id]),
        };
        list.ok_or_else(|| self.wrong("a token's id, or a list of them"))
    }

    fn sequences(&self) -> Result<Vec<Vec<u32>>, OptionError> {
        let sequence = |v: &Value| v.as_array()?.iter().map(token).collect::<Option<Vec<u32>>>();
        let all = self.value.as_array().and_then(|list| list.iter().map(sequence).collect());
        all.ok_or_else(|| self.wrong("a list of lists of ids"))
    }

    fn texts(&self) -> Result<Vec<String>, OptionError> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let all = match self.value {
            Value::Array(list) => list.iter().map(text).collect(),
            one => text(one).map(|t| vec![t]),
        };
        all.ok_or_else(|| self.wrong("a text, or a list of texts"))
    }
}

fn token(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_of_ends_and_unknown_keys() {
        let file =
            json!({"eos_token_id": [1, 2], "transformers_version": "4.1", "do_sample": true, "temperature": 0.6});
        let config = GenerationConfig::from_json(&file, "f").unwrap();
        let options = config.options();
        assert_eq!((options.stop_tokens, options.top_k, options.temperature), (vec![1, 2], 50, 0.6));
        assert_eq!(config.others.len(), 1);
        let config =
            GenerationConfig::from_json(&json!({"eos_token_id": 7, "top_p": 0.5, "top_k": null}), "f").unwrap();
        assert_eq!(config.options(), GenerateOptions::default().stop_tokens(vec![7]));
    }

    #[test]
    fn kinds_are_checked() {
        for file in [
            json!({"temperature": "hot"}),
            json!({"top_k": -1}),
            json!({"eos_token_id": [1, "x"]}),
            json!({"bad_words_ids": [1]}),
            json!({"do_sample": 1}),
            json!([1]),
        ] {
            let error = GenerationConfig::from_json(&file, "generation_config.json").unwrap_err().to_string();
            assert!(error.contains("generation_config.json") && error.contains("has to be"), "{error}");
        }
    }
}
