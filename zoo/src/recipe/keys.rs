//! Settings by key: strict, with defaults that can be printed.
//!
//! A part of a program takes what it knows from a [`Keys`]; whatever is left in the end is an error.
//! Each key that is asked for is written down with the value that it has, given or by default, and
//! sections nest, so the whole of what a recipe means falls out of reading it.

use mobilis_runtime::suggest::did_you_mean;
use serde_json::{Map, Value};
use std::fmt::Display;

/// What is wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{fault}", place(.key))]
pub struct RecipeError {
    /// The key, with dots between sections: `model.optim.lr`. Empty for the recipe as a whole.
    pub key: String,
    /// What is wrong.
    pub fault: String,
}

fn place(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}` ") }
}

impl RecipeError {
    /// A fault of a key's.
    pub fn new(key: impl Into<String>, fault: impl Display) -> RecipeError {
        RecipeError { key: key.into(), fault: fault.to_string() }
    }
}

/// What a setting can be.
pub trait Setting: Sized {
    /// What is expected, in words: `a number`.
    const EXPECTED: &'static str;
    /// The value, if it is one.
    fn of(value: &Value) -> Option<Self>;
    /// The value in a recipe.
    fn shown(&self) -> Value;
}

macro_rules! settings {
    ($($ty:ty, $expected:literal, $value:ident => $of:expr, $own:ident => $shown:expr;)*) => {$(
        impl Setting for $ty {
            const EXPECTED: &'static str = $expected;
            fn of($value: &Value) -> Option<Self> {
                $of
            }
            fn shown(&self) -> Value {
                let $own = self;
                $shown
            }
        }
    )*};
}

settings! {
    f64, "a number", v => v.as_f64(), x => (*x).into();
    u64, "a whole number, at least 0", v => whole(v), x => (*x).into();
    usize, "a whole number, at least 0", v => whole(v).and_then(|n| usize::try_from(n).ok()), x => (*x as u64).into();
    bool, "true or false", v => v.as_bool(), x => (*x).into();
    String, "text", v => v.as_str().map(str::to_string), x => x.as_str().into();
    Vec<f64>, "a list of numbers", v => v.as_array()?.iter().map(f64::of).collect(), x => x.clone().into();
    Vec<String>, "text or a list of texts", v => texts(v), x => x.clone().into();
    Value, "a value", v => Some(v.clone()), x => x.clone();
}

/// `1e5` is a whole number too.
fn whole(value: &Value) -> Option<u64> {
    let exact = |x: f64| x >= 0.0 && x.fract() == 0.0 && x < 9e15;
    value.as_u64().or_else(|| value.as_f64().filter(|x| exact(*x)).map(|x| x as u64))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(String::of).collect(),
        _ => None,
    }
}

/// A section of a recipe that is being read.
#[derive(Debug)]
pub struct Keys {
    path: String,
    given: Map<String, Value>,
    known: Vec<String>,
    resolved: Map<String, Value>,
    notes: Vec<String>,
}

impl Keys {
    /// The whole of a recipe.
    ///
    /// # Errors
    /// A document that is no table.
    pub fn new(document: Value) -> Result<Keys, RecipeError> {
        Keys::at(String::new(), document)
    }

    fn at(path: String, value: Value) -> Result<Keys, RecipeError> {
        match value {
            Value::Object(given) => Ok(Keys { path, given, known: vec![], resolved: Map::new(), notes: vec![] }),
            Value::Null => Keys::at(path, Value::Object(Map::new())),
            other => Err(RecipeError::new(path, format!("is {other}; a section is expected"))),
        }
    }

    /// A key of this section with its sections before it.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// A fault of one of this section's keys.
    pub fn fault(&self, key: &str, fault: impl Display) -> RecipeError {
        RecipeError::new(self.path(key), fault)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.into());
        self.given.shift_remove(key).filter(|v| !v.is_null())
    }

    /// A setting that may be absent; null counts as absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn get<T: Setting>(&mut self, key: &str) -> Result<Option<T>, RecipeError> {
        let Some(value) = self.take(key) else {
            self.resolved.insert(key.into(), Value::Null);
            return Ok(None);
        };
        let found = T::of(&value);
        let fault = || self.fault(key, format!("is {value}; {} is expected", T::EXPECTED));
        let found = found.ok_or_else(fault)?;
        self.resolved.insert(key.into(), found.shown());
        Ok(Some(found))
    }

    /// A setting that has a default.
    ///
    /// # Errors
    /// A value of another kind.
    pub fn or<T: Setting>(&mut self, key: &str, default: T) -> Result<T, RecipeError> {
        let value = self.get(key)?.unwrap_or(default);
        self.resolved.insert(key.into(), value.shown());
        Ok(value)
    }

    /// A setting that must be there.
    ///
    /// # Errors
    /// None, or a value of another kind.
    pub fn required<T: Setting>(&mut self, key: &str) -> Result<T, RecipeError> {
        self.get(key)?.ok_or_else(|| self.fault(key, format!("is missing: {} is expected", T::EXPECTED)))
    }

    /// One of some words; the first where none is given.
    ///
    /// # Errors
    /// Another word.
    pub fn choice(&mut self, key: &str, words: &[&'static str]) -> Result<&'static str, RecipeError> {
        let word = self.or(key, words[0].to_string())?;
        match words.iter().find(|w| **w == word) {
            Some(word) => Ok(word),
            None => {
                let hint = did_you_mean(&word, words);
                Err(self.fault(key, format!("is \"{word}\"; {} are known{hint}", words.join(", "))))
            }
        }
    }

    /// A section; an empty one where it is absent.
    ///
    /// # Errors
    /// Those of `read`; keys that it did not ask for.
    pub fn section<R>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Keys) -> Result<R, RecipeError>,
    ) -> Result<R, RecipeError> {
        let value = self.take(key).unwrap_or(Value::Null);
        let mut inner = Keys::at(self.path(key), value)?;
        let result = read(&mut inner)?;
        let (resolved, notes) = inner.finish()?;
        self.resolved.insert(key.into(), resolved);
        self.notes.extend(notes);
        Ok(result)
    }

    /// A section that may be absent.
    ///
    /// # Errors
    /// Those of [`section`](Self::section).
    pub fn optional<R>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Keys) -> Result<R, RecipeError>,
    ) -> Result<Option<R>, RecipeError> {
        match self.given.get(key) {
            None | Some(Value::Null) => self.get::<Value>(key).map(|_| None),
            Some(_) => self.section(key, read).map(Some),
        }
    }

    /// A section as it is, without what is null, of which only these keys are known.
    ///
    /// # Errors
    /// Another kind of value; a key that is not known.
    pub fn table(&mut self, key: &str, known: &[&str]) -> Result<Option<Value>, RecipeError> {
        let Some(value) = self.get::<Value>(key)? else { return Ok(None) };
        strict(&self.path(key), &value, known)?;
        let Value::Object(mut map) = value else { return Ok(None) };
        map.retain(|_, value| !value.is_null());
        Ok(Some(Value::Object(map)))
    }

    /// Passes over keys that mean nothing here, and notes those that are there.
    pub fn without_effect(&mut self, keys: &[&str]) {
        for key in keys {
            if self.take(key).is_some() {
                self.notes.push(format!("`{}` has no effect here", self.path(key)));
            }
        }
    }

    /// What was asked for, with the values that it has, and notes for whoever wrote the recipe.
    ///
    /// # Errors
    /// A key that nobody asked for, with the nearest that somebody did.
    pub fn finish(self) -> Result<(Value, Vec<String>), RecipeError> {
        if let Some(key) = self.given.keys().next() {
            let hint = match did_you_mean(key, &self.known) {
                hint if hint.is_empty() => format!("; known are {}", self.known.join(", ")),
                hint => hint,
            };
            return Err(self.fault(key, format!("is not known{hint}")));
        }
        Ok((Value::Object(self.resolved), self.notes))
    }
}

/// Whether a section at `path` has known keys alone.
///
/// # Errors
/// Another kind of value; a key that is not known, with the nearest that is.
pub fn strict(path: &str, value: &Value, known: &[&str]) -> Result<(), RecipeError> {
    let Value::Object(map) = value else {
        return Err(RecipeError::new(path, format!("is {value}; a section is expected")));
    };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let hint = did_you_mean(key, known);
            Err(RecipeError::new(format!("{path}.{key}"), format!("is not known{hint}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_taken_is_written_down() {
        let mut keys = Keys::new(json!({"lr": 1, "sched": {"name": "b"}, "devices": 3, "none": null})).unwrap();
        assert_eq!(keys.required::<f64>("lr"), Ok(1.0));
        assert_eq!(keys.or("steps", 7u64), Ok(7));
        assert_eq!(keys.get::<f64>("none"), Ok(None));
        let name = keys.section("sched", |k| k.choice("name", &["a", "b"])).unwrap();
        assert_eq!(name, "b");
        assert_eq!(keys.optional("spec_augment", |k| k.required::<u64>("x")), Ok(None));
        keys.without_effect(&["devices", "nodes"]);
        let (resolved, notes) = keys.finish().unwrap();
        assert_eq!(
            resolved,
            json!({"lr": 1.0, "steps": 7, "none": null, "sched": {"name": "b"}, "spec_augment": null})
        );
        assert_eq!(notes, ["`devices` has no effect here"]);
    }

    #[test]
    fn faults_say_where_and_what() {
        let fault = |document: Value| {
            let read = |keys: &mut Keys| {
                keys.section("optim", |k| {
                    k.or("lr", 0.1)?;
                    k.or("betas", vec![0.9, 0.99])?;
                    k.or("warmup_steps", 0u64)?;
                    k.choice("name", &["adam", "novograd"])?;
                    k.required::<bool>("flag")
                })
            };
            let mut keys = Keys::new(document).unwrap();
            read(&mut keys).map(|_| ()).and_then(|()| keys.finish().map(|_| ())).unwrap_err().to_string()
        };
        let with = |key: &str, value: Value| {
            let mut section = json!({"flag": true});
            section[key] = value;
            fault(json!({ "optim": section }))
        };
        assert_eq!(with("lr", json!("fast")), "`optim.lr` is \"fast\"; a number is expected");
        assert_eq!(with("warmup_stesp", json!(1)), "`optim.warmup_stesp` is not known; did you mean `warmup_steps`?");
        assert_eq!(with("zzz", json!(1)), "`optim.zzz` is not known; known are lr, betas, warmup_steps, name, flag");
        assert_eq!(
            with("warmup_steps", json!(1.5)),
            "`optim.warmup_steps` is 1.5; a whole number, at least 0 is expected"
        );
        assert_eq!(
            with("name", json!("novgrad")),
            "`optim.name` is \"novgrad\"; adam, novograd are known; did you mean `novograd`?"
        );
        assert_eq!(with("betas", json!([1, "x"])), "`optim.betas` is [1,\"x\"]; a list of numbers is expected");
        assert_eq!(fault(json!({"optim": 3})), "`optim` is 3; a section is expected");
        assert_eq!(fault(json!({})), "`optim.flag` is missing: true or false is expected");
        assert_eq!(fault(json!({"optim": {"flag": true}, "optin": 1})), "`optin` is not known; did you mean `optim`?");
    }
}
