//! JSON as it stands in a file: objects keep the order of their keys *and duplicates*, which maps
//! of the usual kind drop without a word.

use serde_core::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number that is not negative.
    Count(u64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
    /// `[..]`
    List(Vec<Json>),
    /// `{..}`
    Map(Vec<(String, Json)>),
}

/// Lists in headers are shapes and pairs of offsets: longer ones would only cost memory.
const LONGEST_LIST: usize = 64;

impl Json {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a truth value",
            Json::Count(_) => "a whole number",
            Json::Number(_) => "a number that is negative or not whole",
            Json::Text(_) => "text",
            Json::List(_) => "a list",
            Json::Map(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Json, E> {
        Ok(Json::Bool(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Json, E> {
        Ok(Json::Count(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
        Ok(u64::try_from(v).map_or(Json::Number(v as f64), Json::Count))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Json, E> {
        Ok(Json::Number(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Json, E> {
        Ok(Json::Text(v.to_string()))
    }
    fn visit_string<E>(self, v: String) -> Result<Json, E> {
        Ok(Json::Text(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element()? {
            if list.len() == LONGEST_LIST {
                return Err(A::Error::custom(format!("a list has more than {LONGEST_LIST} entries")));
            }
            list.push(item);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Json::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let Json::Map(map) = parse(r#"{"b": 1, "a": [true, null, -2, 0.5], "b": "x"}"#).unwrap() else {
            panic!("not an object")
        };
        let keys: Vec<&str> = map.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert_eq!(map[1].1, Json::List(vec![Json::Bool(true), Json::Null, Json::Number(-2.0), Json::Number(0.5)]));
    }

    #[test]
    fn hostile_nesting_and_lists_end_in_errors() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("[{}0]", "0,".repeat(64))).is_err());
        assert!(parse(&format!("[{}0]", "0,".repeat(63))).is_ok());
        assert_eq!(parse("18446744073709551615").unwrap(), Json::Count(u64::MAX));
        // Beyond 64 bits a number is a float: no count.
        assert!(matches!(parse("18446744073709551616").unwrap(), Json::Number(_)));
    }
}
