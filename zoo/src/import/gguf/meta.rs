//! The values of a GGUF file's metadata.

use std::collections::BTreeMap;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    /// A whole number that is not negative.
    Count(u64),
    /// A whole number of a signed type.
    Int(i64),
    /// A real number: of an `f32`, the shortest decimal that means it.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Text.
    Text(String),
    /// Bytes, signed or not.
    Bytes(Vec<u8>),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Real numbers.
    Floats(Vec<f32>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
}

impl Meta {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Meta::Count(_) | Meta::Int(_) => "a whole number",
            Meta::Float(_) => "a real number",
            Meta::Bool(_) => "a truth value",
            Meta::Text(_) => "text",
            Meta::Bytes(_) => "bytes",
            Meta::Ints(_) => "a list of whole numbers",
            Meta::Floats(_) => "a list of real numbers",
            Meta::Bools(_) => "a list of truth values",
            Meta::Texts(_) => "a list of texts",
        }
    }
}

/// Short, for people: lists by their length.
impl std::fmt::Display for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Meta::Count(v) => write!(f, "{v}"),
            Meta::Int(v) => write!(f, "{v}"),
            Meta::Float(v) => write!(f, "{v}"),
            Meta::Bool(v) => write!(f, "{v}"),
            Meta::Text(v) => match v.char_indices().nth(80) {
                Some((at, _)) => write!(f, "{:?}... ({} characters)", &v[..at], v.chars().count()),
                None => write!(f, "{v:?}"),
            },
            Meta::Bytes(v) => write!(f, "{} bytes", v.len()),
            Meta::Ints(v) => list(f, v),
            Meta::Floats(v) => list(f, v),
            Meta::Bools(v) => list(f, v),
            Meta::Texts(v) => list(f, v),
        }
    }
}

fn list<T: std::fmt::Debug>(f: &mut std::fmt::Formatter<'_>, v: &[T]) -> std::fmt::Result {
    if v.len() <= 8 { write!(f, "{v:?}") } else { write!(f, "{:?}... ({} values)", &v[..4], v.len()) }
}

/// The nearest `f64` of an `f32`'s shortest decimal: 1e-5 and not 0.000009999999747378752.
pub fn decimal(v: f32) -> f64 {
    if v.is_finite() { v.to_string().parse().unwrap_or(v as f64) } else { v as f64 }
}

/// All metadata, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<String, Meta>);

impl Metadata {
    /// A value of any kind.
    pub fn get(&self, key: &str) -> Option<&Meta> {
        self.0.get(key)
    }

    /// A whole number that may be absent. A list counts where it repeats one number, as files of
    /// some converters have one for each layer.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn count(&self, key: &str) -> Result<Option<u64>, String> {
        let found = match self.get(key) {
            None => return Ok(None),
            Some(Meta::Count(v)) => Some(*v),
            Some(Meta::Int(v)) => u64::try_from(*v).ok(),
            Some(Meta::Ints(v)) => match v.split_first() {
                Some((first, rest)) if rest.iter().all(|v| v == first) => u64::try_from(*first).ok(),
                _ => None,
            },
            Some(_) => None,
        };
        found.map(Some).ok_or_else(|| self.wrong(key, "a whole number that is not negative"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// None there, another kind of value, or more than 2^32.
    pub fn need(&self, key: &str) -> Result<u64, String> {
        match self.count(key)? {
            Some(n) if n <= 1 << 32 => Ok(n),
            Some(n) => Err(format!("`{key}` is {n}, which is more than is believed")),
            None => {
                let hint = mobilis_runtime::suggest::did_you_mean(key, self.0.keys());
                Err(format!("its metadata lacks `{key}`{hint}"))
            }
        }
    }

    /// A real number that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Float(v)) => Ok(Some(*v)),
            Some(Meta::Count(v)) => Ok(Some(*v as f64)),
            Some(Meta::Int(v)) => Ok(Some(*v as f64)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// A truth value that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Bool(v)) => Ok(Some(*v)),
            Some(_) => Err(self.wrong(key, "a truth value")),
        }
    }

    /// Text that may be absent.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Text(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong(key, "text")),
        }
    }

    fn wrong(&self, key: &str, expected: &str) -> String {
        format!("`{key}` is {}, where {expected} is expected", self.get(key).map_or("missing", Meta::kind))
    }
}
