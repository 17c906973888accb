//! `config.json` as Hugging Face writes it, in the spelling of transformers 4 (`rope_theta`,
//! `rope_scaling`, `torch_dtype`) and of transformers 5 (`rope_parameters`, `dtype`).
//!
//! A [`Config`] is the file's object with typed access: every getter says which key it wanted, what
//! it found, and in which file. Nothing is believed: sizes are bounded before anything is made of
//! them.

use crate::import::json;
use mobilis_runtime::nn::{Activation, Rotary, Scaling, Yarn};
use mobilis_runtime::suggest::did_you_mean;
use serde_json::Value;

/// The largest size, number of layers or of heads that is believed.
const MOST: u64 = 1 << 32;

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A setting that the family needs.
    #[error("{place}: `{key}` is missing{hint}")]
    Missing {
        /// The file.
        place: String,
        /// The setting.
        key: String,
        /// A near name, in words.
        hint: String,
    },
    /// A setting of another kind or out of range.
    #[error("{place}: `{key}` is {found}, expected {expected}")]
    Wrong {
        /// The file.
        place: String,
        /// The setting.
        key: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

/// A configuration: a JSON object and where it came from.
#[derive(Clone, Debug)]
pub struct Config {
    place: String,
    value: Value,
}

/// The heads of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub all: usize,
    /// Heads of keys and values.
    pub kv: usize,
    /// Heads of queries for each of these.
    pub groups: usize,
    /// Features of a head.
    pub dim: usize,
}

impl Config {
    /// A configuration from its object; `place` names the file in errors.
    pub fn new(place: impl Into<String>, value: Value) -> Config {
        Config { place: place.into(), value }
    }

    /// A configuration from the text of its file. Python writes infinities as bare words, which
    /// JSON does not have; they are read all the same.
    ///
    /// # Errors
    /// Text that is no JSON object.
    pub fn parse(place: impl Into<String>, text: &str) -> Result<Config, ConfigError> {
        let place = place.into();
        let fault = |found: String| ConfigError::Wrong {
            place: place.clone(),
            key: "the file".into(),
            found,
            expected: "a JSON object".into(),
        };
        let value = json::parse(text).map_err(fault)?;
        if !value.is_object() {
            return Err(fault("another value".into()));
        }
        Ok(Config { place, value })
    }

    /// The file's `model_type`.
    ///
    /// # Errors
    /// None there, or no text.
    pub fn model_type(&self) -> Result<&str, ConfigError> {
        self.word("model_type")?.ok_or_else(|| self.missing("model_type"))
    }

    /// Where it came from, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The object.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// A setting; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    /// The same with settings for those that the file lacks; a `null` of the file stays.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Value) -> Config {
        if let (Value::Object(own), Value::Object(defaults)) = (&mut self.value, defaults) {
            for (key, value) in defaults {
                own.entry(key).or_insert(value);
            }
        }
        self
    }

    /// The same with another value for a setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Config {
        if let Value::Object(own) = &mut self.value {
            own.insert(key.into(), value);
        }
        self
    }

    /// A configuration within this one (`text_config`).
    pub fn inner(&self, key: &str) -> Option<Config> {
        let value = self.get(key).filter(|v| v.is_object())?;
        Some(Config::new(format!("{} `{key}`", self.place), value.clone()))
    }

    /// The error for a setting that is needed.
    pub fn missing(&self, key: &str) -> ConfigError {
        let hint = self.value.as_object().map(|o| did_you_mean(key, o.keys())).unwrap_or_default();
        ConfigError::Missing { place: self.place.clone(), key: key.into(), hint }
    }

    /// The error for a setting of the wrong kind.
    pub fn wrong(&self, key: &str, expected: impl Into<String>) -> ConfigError {
        let mut found = self.value.get(key).map_or("absent".into(), Value::to_string);
        if found.len() > 80 {
            found = found.chars().take(77).chain("...".chars()).collect();
        }
        ConfigError::Wrong { place: self.place.clone(), key: key.into(), found, expected: expected.into() }
    }

    fn whole(&self, key: &str, value: &Value) -> Result<usize, ConfigError> {
        let fits = |n: &u64| *n <= MOST;
        let found = value.as_u64().filter(fits).and_then(|n| usize::try_from(n).ok());
        found.ok_or_else(|| self.wrong(key, format!("a whole number up to {MOST}")))
    }

    /// A size: a whole number of at least 1.
    ///
    /// # Errors
    /// No such setting, or another kind of value.
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let value = self.get(key).ok_or_else(|| self.missing(key))?;
        match self.whole(key, value)? {
            0 => Err(self.wrong(key, "a whole number of at least 1")),
            n => Ok(n),
        }
    }

    /// The first of several spellings of a size that is there.
    ///
    /// # Errors
    /// None of them, or another kind of value.
    pub fn size_of(&self, keys: &[&str]) -> Result<usize, ConfigError> {
        let key = keys.iter().find(|k| self.get(k).is_some()).unwrap_or(&keys[0]);
        self.size(key)
    }

    /// A whole number that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key).map(|v| self.whole(key, v)).transpose()
    }

    /// A real number, or what it is where the file does not say.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.number_if(key)?.unwrap_or(default))
    }

    /// A real number that may be absent. Infinities are read in transformers' spellings.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn number_if(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let read = |v: &Value| real(v).ok_or_else(|| self.wrong(key, "a number"));
        self.get(key).map(read).transpose()
    }

    /// A list of real numbers that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        let wrong = || self.wrong(key, "a list of numbers");
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|v| real(v).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }

    /// A truth value, or what it is where the file does not say.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A word that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn word(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key, "a text"))).transpose()
    }

    /// A list of words that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn words(&self, key: &str) -> Result<Option<Vec<&str>>, ConfigError> {
        let wrong = || self.wrong(key, "a list of texts");
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|v| v.as_str().ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }

    /// How many layers there are (`num_hidden_layers`, `n_layer`).
    ///
    /// # Errors
    /// No such setting, or more than 10,000.
    pub fn layers(&self) -> Result<usize, ConfigError> {
        let key = if self.get("num_hidden_layers").is_some() { "num_hidden_layers" } else { "n_layer" };
        let key = if self.get(key).is_some() { key } else { "num_hidden_layers" };
        match self.size(key)? {
            n if n <= 10_000 => Ok(n),
            _ => Err(self.wrong(key, "at most 10000 layers")),
        }
    }

    /// Heads of queries, of keys and values, and their features (`num_attention_heads`,
    /// `num_key_value_heads`, `head_dim`).
    ///
    /// # Errors
    /// Heads that do not divide.
    pub fn heads(&self) -> Result<Heads, ConfigError> {
        let all = self.size("num_attention_heads")?;
        let kv = match self.get("num_key_value_heads") {
            Some(_) => self.size("num_key_value_heads")?,
            None => all,
        };
        if all % kv != 0 {
            return Err(self.wrong("num_key_value_heads", format!("a divisor of the {all} attention heads")));
        }
        let dim = match self.get("head_dim") {
            Some(_) => self.size("head_dim")?,
            None => {
                let hidden = self.size("hidden_size")?;
                if hidden % all != 0 {
                    return Err(self.wrong("hidden_size", format!("a multiple of the {all} attention heads")));
                }
                hidden / all
            }
        };
        Ok(Heads { all, kv, groups: all / kv, dim })
    }

    /// An activation by its name in transformers' `ACT2FN`.
    ///
    /// # Errors
    /// A name that is not known.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation, ConfigError> {
        let name = self.word(key)?.unwrap_or(default);
        Ok(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
                Activation::GeluTanh
            }
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "relu2" => Activation::ReluSquared,
            "mish" => Activation::Mish,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "linear" => Activation::Identity,
            _ => {
                let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, relu2, mish, tanh, sigmoid \
                             or linear";
                return Err(self.wrong(key, known));
            }
        })
    }

    /// Whether layer `i` sees a sliding window only, and of how many positions. `period` is the
    /// family's own rule where the file has no `layer_types`.
    ///
    /// # Errors
    /// Values of another kind, types that are not known, fewer types than layers.
    pub fn window(&self, i: usize, period: impl Fn(usize) -> bool) -> Result<Option<u64>, ConfigError> {
        let window = self.count("sliding_window")?.filter(|w| *w > 0).map(|w| w as u64);
        let sliding = match self.words("layer_types")? {
            None => period(i),
            Some(types) => match types.get(i) {
                Some(&"sliding_attention") => true,
                Some(&"full_attention") => false,
                Some(_) => return Err(self.wrong("layer_types", "sliding_attention or full_attention for each layer")),
                None => return Err(self.wrong("layer_types", format!("a type for each of {} layers", self.layers()?))),
            },
        };
        if sliding && window.is_none() {
            return Err(self.missing("sliding_window"));
        }
        Ok(window.filter(|_| sliding))
    }

    /// The rotary positions. Where a file has several sets (Gemma 3), `kind` names the one:
    /// `full_attention` or `sliding_attention`.
    ///
    /// # Errors
    /// A scaling that is not known, or that lacks a setting.
    pub fn rotary(&self, kind: Option<&str>) -> Result<Rotary, ConfigError> {
        let set = match (self.inner("rope_parameters"), kind) {
            (Some(set), Some(kind)) => Some(set.inner(kind).unwrap_or(set)),
            (set, _) => set,
        };
        let scaling = set.clone().or_else(|| self.inner("rope_scaling"));
        let either = |key: &str, default: f64| match set.as_ref().map(|s| s.number_if(key)).transpose()?.flatten() {
            Some(value) => Ok(value),
            None => self.number(key, default),
        };
        let theta = either("rope_theta", 10_000.0)?;
        let partial = either("partial_rotary_factor", 1.0)?;
        if theta <= 0.0 || !theta.is_finite() {
            return Err(self.wrong("rope_theta", "a positive number"));
        }
        if !(0.0..=1.0).contains(&partial) {
            return Err(self.wrong("partial_rotary_factor", "a number from 0 to 1"));
        }
        let scaling = scaling.map_or(Ok(Scaling::None), |s| self.scaling(&s))?;
        Ok(Rotary { theta, partial, scaling })
    }

    fn scaling(&self, of: &Config) -> Result<Scaling, ConfigError> {
        // Zero means the same as no value, as in Python.
        let present = |key: &str| of.number_if(key).map(|v| v.filter(|v| *v != 0.0));
        let need = |key: &str| of.number_if(key)?.ok_or_else(|| of.missing(key));
        let kind = of.word("rope_type")?.or(of.word("type")?).unwrap_or("default");
        let positions = || self.size("max_position_embeddings").map(|n| n as f64);
        // transformers gives the model's own setting priority over that of the scaling.
        let original = || match self.number_if("original_max_position_embeddings")? {
            Some(n) => Ok(n),
            None => match of.number_if("original_max_position_embeddings")? {
                Some(n) => Ok(n),
                None => positions(),
            },
        };
        Ok(match kind {
            "default" | "mrope" => Scaling::None,
            "linear" => Scaling::Linear { factor: need("factor")? },
            "dynamic" => Scaling::Dynamic { factor: need("factor")?, original: positions()? },
            "llama3" => Scaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: original()?,
            },
            "yarn" => {
                let original = original()?;
                let factor = match of.number_if("factor")? {
                    Some(factor) => factor,
                    None => positions()? / original,
                };
                Scaling::Yarn(Yarn {
                    beta_fast: present("beta_fast")?.unwrap_or(32.0),
                    beta_slow: present("beta_slow")?.unwrap_or(1.0),
                    attention: of.number_if("attention_factor")?,
                    mscale: present("mscale")?.zip(present("mscale_all_dim")?),
                    truncate: of.flag("truncate", true)?,
                    ..Yarn::new(factor, original)
                })
            }
            "longrope" | "su" => {
                let list = |key: &str| of.numbers(key)?.ok_or_else(|| of.missing(key));
                let original = original()?;
                let attention = match (of.number_if("attention_factor")?, of.number_if("factor")?) {
                    (Some(attention), _) => attention,
                    (None, Some(factor)) => Scaling::long_rope_attention(factor * original, original),
                    (None, None) => Scaling::long_rope_attention(positions()?, original),
                };
                Scaling::LongRope { short: list("short_factor")?, long: list("long_factor")?, original, attention }
            }
            _ => {
                let key = if of.get("rope_type").is_some() { "rope_type" } else { "type" };
                return Err(of.wrong(key, "default, linear, dynamic, llama3, yarn or longrope"));
            }
        })
    }
}

/// A number, with infinities as transformers 5 writes them: `{"__float__": "Infinity"}`.
fn real(value: &Value) -> Option<f64> {
    let word = value.get("__float__").unwrap_or(value);
    match word.as_str() {
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => word.as_f64(),
    }
}
