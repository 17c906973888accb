//! JSON: reading it strictly and writing it.
//!
//! Objects keep the order of their keys *and duplicates*, which the maps of the usual libraries
//! drop without a word: a checkpoint in which a tensor stands twice must be refused. It is a
//! few lines here and not a library because the build of every user's crate would pay a tenth
//! of its time for one; the tests hold it against `serde_json`.

use std::fmt::{self, Write};

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

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {position}")]
pub struct JsonError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start.
    pub position: usize,
}

/// Values nested deeper are refused: recursion must end before the stack does.
const DEEPEST: usize = 64;

impl Json {
    /// Parses a text that is one value.
    ///
    /// # Errors
    /// Every deviation from RFC 8259, and values nested more than 64 deep.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.space();
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(parser.error("something follows the value")),
        }
    }

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

    /// An object.
    pub fn map<'k, V: Into<Json>>(entries: impl IntoIterator<Item = (&'k str, V)>) -> Json {
        Json::Map(entries.into_iter().map(|(k, v)| (k.to_string(), v.into())).collect())
    }

    /// A list.
    pub fn list<V: Into<Json>>(items: impl IntoIterator<Item = V>) -> Json {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl From<bool> for Json {
    fn from(v: bool) -> Json {
        Json::Bool(v)
    }
}
impl From<u64> for Json {
    fn from(v: u64) -> Json {
        Json::Count(v)
    }
}
impl From<usize> for Json {
    fn from(v: usize) -> Json {
        Json::Count(v as u64)
    }
}
impl From<f64> for Json {
    fn from(v: f64) -> Json {
        Json::Number(v)
    }
}
impl From<&str> for Json {
    fn from(v: &str) -> Json {
        Json::Text(v.to_string())
    }
}
impl From<String> for Json {
    fn from(v: String) -> Json {
        Json::Text(v)
    }
}
impl From<&String> for Json {
    fn from(v: &String) -> Json {
        Json::Text(v.clone())
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> JsonError {
        JsonError { message: message.into(), position: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.at += found as usize;
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("a value is expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > DEEPEST {
            return Err(self.error("values are nested too deep"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("a value is expected")),
            None => Err(self.error("the text ends where a value is expected")),
        }
    }

    /// Entries between brackets, each read by `entry`.
    fn entries(
        &mut self,
        close: u8,
        mut entry: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            entry(self)?;
            self.space();
            if self.take(close) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.error(&format!("`,` or `{}` is expected", close as char)));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut items = vec![];
        self.entries(b']', |p| {
            items.push(p.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Json::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Json, JsonError> {
        let mut entries = vec![];
        self.entries(b'}', |p| {
            p.space();
            if p.peek() != Some(b'"') {
                return Err(p.error("a key in quotes is expected"));
            }
            let key = p.string()?;
            p.space();
            if !p.take(b':') {
                return Err(p.error("`:` is expected"));
            }
            entries.push((key, p.value(depth + 1)?));
            Ok(())
        })?;
        Ok(Json::Map(entries))
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        let digits = |p: &mut Self| {
            let from = p.at;
            while matches!(p.peek(), Some(b'0'..=b'9')) {
                p.at += 1;
            }
            if p.at == from { Err(p.error("a digit is expected")) } else { Ok(p.at - from) }
        };
        let negative = self.take(b'-');
        let zero = self.peek() == Some(b'0');
        if digits(self)? > 1 && zero {
            return Err(self.error("a number starts with a needless 0"));
        }
        let mut whole = true;
        if self.take(b'.') {
            whole = false;
            digits(self)?;
        }
        if self.take(b'e') || self.take(b'E') {
            whole = false;
            let _ = self.take(b'+') || self.take(b'-');
            digits(self)?;
        }
        let text = &self.text[start..self.at];
        if whole
            && !negative
            && let Ok(n) = text.parse()
        {
            return Ok(Json::Count(n));
        }
        match text.parse::<f64>() {
            Ok(v) if v.is_finite() => Ok(Json::Number(v)),
            _ => Err(self.error("a number is out of range")),
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return Err(self.error("a control character stands in a text")),
                None => return Err(self.error("a text does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = self.peek().ok_or_else(|| self.error("a text does not end"))?;
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => c as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                let low = matches!(high, 0xD800..=0xDBFF) && self.take(b'\\') && self.take(b'u');
                let code = match (high, low) {
                    (_, true) => match self.hex()? {
                        low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                        _ => 0xD800,
                    },
                    (code, false) => code,
                };
                char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair stands in a text"))?
            }
            _ => return Err(self.error("an unknown escape stands in a text")),
        })
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        let fits = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| fits);
        let code = code.ok_or_else(|| self.error("four hexadecimal digits are expected"))?;
        self.at += 4;
        Ok(code)
    }
}

/// Compact; with `{:#}` indented by two spaces. Numbers that are not finite become `null`.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self, f.alternate().then_some(0))
    }
}

fn write(f: &mut fmt::Formatter<'_>, value: &Json, indent: Option<usize>) -> fmt::Result {
    match value {
        Json::Null => f.write_str("null"),
        Json::Bool(v) => write!(f, "{v}"),
        Json::Count(v) => write!(f, "{v}"),
        // `Debug` keeps `.0` and uses exponents for extremes, both valid JSON.
        Json::Number(v) if v.is_finite() => write!(f, "{v:?}"),
        Json::Number(_) => f.write_str("null"),
        Json::Text(v) => quoted(f, v),
        Json::List(items) => sequence(f, ('[', ']'), items, indent, write),
        Json::Map(entries) => sequence(f, ('{', '}'), entries, indent, |f, (key, value), indent| {
            quoted(f, key)?;
            f.write_str(if indent.is_some() { ": " } else { ":" })?;
            write(f, value, indent)
        }),
    }
}

fn sequence<T>(
    f: &mut fmt::Formatter<'_>,
    (open, close): (char, char),
    items: &[T],
    indent: Option<usize>,
    each: impl Fn(&mut fmt::Formatter<'_>, &T, Option<usize>) -> fmt::Result,
) -> fmt::Result {
    let line = |f: &mut fmt::Formatter<'_>, depth: Option<usize>| match depth {
        Some(depth) => write!(f, "\n{:1$}", "", 2 * depth),
        None => Ok(()),
    };
    f.write_char(open)?;
    let inner = indent.map(|d| d + 1);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_char(',')?;
        }
        line(f, inner)?;
        each(f, item, inner)?;
    }
    if !items.is_empty() {
        line(f, indent)?;
    }
    f.write_char(close)
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &Json, b: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (a, b) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::Count(a), Value::Number(b)) => b.as_u64() == Some(*a),
            (Json::Number(a), Value::Number(b)) => b.as_f64() == Some(*a),
            (Json::Text(a), Value::String(b)) => a == b,
            (Json::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Json::Map(a), Value::Object(b)) => a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w))),
            _ => false,
        }
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let Ok(Json::Map(map)) = Json::parse(r#"{"b": 1, "a": [true, null, -2, 0.5], "b": "x"}"#) else {
            panic!("not an object")
        };
        let keys: Vec<&str> = map.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert_eq!(map[1].1, Json::List(vec![true.into(), Json::Null, Json::Number(-2.0), Json::Number(0.5)]));
    }

    #[test]
    fn it_takes_and_refuses_what_the_reference_does() {
        let texts = [
            "{}",
            "[]",
            " [ ] ",
            "0",
            "-0",
            "01",
            "1.",
            ".5",
            "1e5",
            "1E+5",
            "1e-400",
            "1e400",
            "-",
            "+1",
            "1.5e",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "\"\"",
            "\"a\\u00e9\\n\\/\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\ud83d\\u0041\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"tab\there\"",
            "\"open",
            "nul",
            "true",
            "tru",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":{\"b\":[1,{\"c\":null}]}}",
            "[1] 2",
            "",
            " ",
            "\u{feff}1",
            "\"é😀\"",
            "[1.0, 2.5e-3, 123456789.123]",
            "NaN",
            "Infinity",
        ];
        for text in texts {
            match (Json::parse(text), serde_json::from_str::<serde_json::Value>(text)) {
                (Ok(a), Ok(b)) => assert!(same(&a, &b), "{text}: {a:?} is not {b:?}"),
                (Err(_), Err(_)) => {}
                (a, b) => panic!("{text}: {a:?} against {b:?}"),
            }
        }
    }

    #[test]
    fn damaged_texts_never_panic_and_agree_with_the_reference() {
        let good = r#"{"w.é": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], "x": -1.5e3}, "\u0041\n": [true, null]}"#;
        for (i, _) in good.char_indices() {
            for damage in ["", "\"", "\\", "{", "}", "[", ",", "0", "e", "\u{1}"] {
                let end = good[i..].chars().next().map_or(i, |c| i + c.len_utf8());
                for text in [format!("{}{damage}{}", &good[..i], &good[end..]), good[..i].to_string() + damage] {
                    let ours = Json::parse(&text);
                    let theirs = serde_json::from_str::<serde_json::Value>(&text);
                    assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} against {theirs:?}");
                }
            }
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        assert!(Json::parse(&"[".repeat(1_000_000)).is_err());
        assert!(Json::parse(&format!("{}{}", "[".repeat(60), "]".repeat(60))).is_ok());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = Json::map([
            ("text", Json::from("a\"\\\n\u{1}é")),
            ("numbers", Json::list([0.1, -3.0, 1e300, 5e-324])),
            ("count", 7u64.into()),
            ("empty", Json::List(vec![])),
            ("none", Json::Null),
            ("yes", true.into()),
        ]);
        for text in [value.to_string(), format!("{value:#}")] {
            assert_eq!(Json::parse(&text).as_ref(), Ok(&value));
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
        assert_eq!(format!("{:#}", Json::map([("a", Json::list([1u64, 2]))])), "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
        assert_eq!(Json::Number(f64::NAN).to_string(), "null");
    }
}
