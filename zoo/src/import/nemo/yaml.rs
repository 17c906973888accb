//! YAML as configurations have it, as JSON's values.
//!
//! What OmegaConf reads is meant: `1e-3` is a number, not text as in YAML 1.1; `y`, `n`, `yes` and `no` are text,
//! which they are in the labels of a model. Numbers that are not finite become `{"__float__": "Infinity"}`, as
//! [`super::super::json`] has them. Anchors and merge keys are unfolded within limits; a tag that asks for an
//! object of Python's (`!!python/object`) is refused with its name, as is any other unknown one.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// No configuration is longer.
pub const LONGEST: usize = 16 << 20;

/// Parses one document.
///
/// # Errors
/// What is wrong, with line and column.
pub fn parse(text: &str) -> Result<Value, String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes, of which at most {LONGEST} are read", text.len()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1, max_nodes: 500_000, max_events: 1_000_000, max_depth: 64, max_recorded_anchor_events: 50_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        strict_booleans: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let Any(value) = serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
    Ok(value)
}

/// Writes a value as one document, that YAML 1.1's readers read as well.
///
/// # Errors
/// A value that YAML has no words for.
pub fn print(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(&Shown(value)).map_err(|e| e.to_string())
}

/// Any value.
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Any, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(Any)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(match Number::from_f64(value) {
            Some(number) => Value::Number(number),
            None => {
                let word = if value.is_nan() { "NaN" } else { ["-Infinity", "Infinity"][usize::from(value > 0.0)] };
                serde_json::json!({ "__float__": word })
            }
        })
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Any(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Any(value))) = entries.next_entry::<String, Any>()? {
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// A value whose `{"__float__": ..}` are written as YAML's `.inf` and `.nan`.
struct Shown<'v>(&'v Value);

impl serde::Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Shown)),
            Value::Object(entries) => {
                if let (1, Some(Value::String(word))) = (entries.len(), entries.get("__float__"))
                    && let Some(number) = word_number(word)
                {
                    return serializer.serialize_f64(number);
                }
                serializer.collect_map(entries.iter().map(|(k, v)| (k, Shown(v))))
            }
            other => other.serialize(serializer),
        }
    }
}

fn word_number(word: &str) -> Option<f64> {
    match word {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_omegaconf_reads_it() {
        let text = "lr: 1e-3\nstep: 1E5\nlabels: [' ', y, n, 'no', \"null\"]\nnothing: null\ndefault: ~\nweight: -.inf\non: true\n\
                    base: &base {a: 1, b: -2}\nmore:\n  <<: *base\n  b: 2.50\nagain: *base\nname: ${model.name}\n";
        let expected = json!({
            "lr": 1e-3, "step": 1e5, "labels": [" ", "y", "n", "no", "null"], "nothing": null, "default": null,
            "weight": {"__float__": "-Infinity"}, "on": true, "base": {"a": 1, "b": -2},
            "more": {"b": 2.5, "a": 1}, "again": {"a": 1, "b": -2}, "name": "${model.name}",
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_refused() {
        let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_string()
            + &('b'..='k')
                .map(|c| {
                    let last = (c as u8 - 1) as char;
                    format!("{c}: &{c} [{}]\n", vec![format!("*{last}"); 9].join(", "))
                })
                .collect::<String>();
        let deep = "[".repeat(100_000);
        for (text, said) in [
            ("a: !!python/object/apply:os.system ['ls']", "python"),
            ("!!python/object/new:os.system [ls]", "python"),
            ("a: !custom 1", "custom"),
            ("a: 1\na: 2", "duplicate"),
            ("a: [1, 2", ""),
            ("a: *unknown", ""),
            (&bomb, ""),
            (&deep, ""),
        ] {
            let fault = parse(text).expect_err(&text[..text.len().min(80)]);
            assert!(fault.contains(said), "{fault}");
        }
    }

    /// A text of a megabyte that thousands of aliases repeat, and merge keys that multiply.
    #[test]
    fn aliases_cannot_multiply_what_is_long() {
        let long = "x".repeat(1 << 20);
        for text in [
            format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(40_000)),
            format!("a: &a {{k: {long}}}\nb:\n{}", "- {<<: *a}\n".repeat(9_000)),
            format!("a: &a [{long}]\nb: [{}]\n", "*a, ".repeat(20_000)),
            // As many anchors as aliases.
            (0..20_000).fold(format!("a0: &a0 {long}\n"), |t, i| t + &format!("b{i}: &b{i} [*a0]\n")),
        ] {
            assert!(parse(&text).is_err(), "{} bytes", text.len());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let value = json!({
            "labels": [" ", "y", "n", "no", "on", "null", "1e-3", "010", "'", "", "a: b", "é", "-", "1:30", "~"],
            "lr": 1e-5, "big": 1e30, "count": 3, "flag": false, "none": null, "empty": [], "nothing": {},
            "weight": {"__float__": "-Infinity"}, "lines": "a\nb\n",
        });
        assert_eq!(parse(&print(&value).expect("prints")), Ok(value));
    }
}
