//! JSON files beside weights: read whole, with a limit, and with Python's numbers.
//!
//! Python writes `Infinity`, `-Infinity` and `NaN` as bare words, which JSON does not have; newer
//! versions of `transformers` write `{"__float__": "Infinity"}`. Values here have the second form.

use super::ImportError;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No configuration is larger; indices of the largest models have a few megabytes.
const LONGEST: u64 = 64 << 20;

/// Reads a JSON file.
///
/// # Errors
/// Those of the system, files above 64 MiB, and text that is no JSON, with line and column.
pub fn read(path: &Path) -> Result<Value, ImportError> {
    parse(&read_text(path)?).map_err(|fault| ImportError::Config { path: path.into(), fault })
}

/// Reads a JSON file that holds an object.
///
/// # Errors
/// As for [`read`], and any other value.
pub fn read_object(path: &Path) -> Result<Value, ImportError> {
    let value = read(path)?;
    match value {
        Value::Object(_) => Ok(value),
        other => Err(ImportError::Config {
            path: path.into(),
            fault: format!("an object is expected, not {}", kind(&other)),
        }),
    }
}

/// Reads a text file of at most 64 MiB.
///
/// # Errors
/// Those of the system, longer files, and bytes that are no UTF-8.
pub fn read_text(path: &Path) -> Result<String, ImportError> {
    let failed = |source| ImportError::Io { action: "read", path: path.into(), source };
    let fault = |fault: String| ImportError::Config { path: path.into(), fault };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(fault(format!("it has more than {} MiB, the most that is read", LONGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| fault(format!("it is no UTF-8 text: {}", e.utf8_error())))
}

/// Parses JSON with Python's bare words for numbers that are not finite.
///
/// # Errors
/// What is wrong, with line and column.
pub fn parse(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(first) => serde_json::from_str(&wrapped(text).ok_or_else(|| first.to_string())?).map_err(|e| e.to_string()),
    }
}

/// The text with bare words for numbers in the newer spelling; nothing where there is none.
fn wrapped(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut out = String::with_capacity(text.len() + 64);
    let (mut rest, mut quoted, mut found) = (text, false, false);
    while let Some(c) = rest.chars().next() {
        if let Some(word) = WORDS.iter().find(|w| !quoted && rest.starts_with(**w)) {
            out.push_str(&format!("{{\"__float__\": \"{word}\"}}"));
            rest = &rest[word.len()..];
            found = true;
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => quoted = !quoted,
            // What is escaped ends no text.
            '\\' if quoted => {
                if let Some(next) = rest.chars().next() {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
            _ => {}
        }
    }
    found.then_some(out)
}

/// What kind of value it is, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_are_not_finite() {
        let text = r#"{"limit": [0.0, Infinity, -Infinity], "Infinity \" NaN": NaN, "é": "NaN"}"#;
        let float = |v: &str| json!({ "__float__": v });
        let expected = json!({
            "limit": [0.0, float("Infinity"), float("-Infinity")],
            "Infinity \" NaN": float("NaN"),
            "é": "NaN",
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_no_json() {
        for text in ["", "{", "{\"a\": Infinit}", "NaN NaN", "\"\\", "{\"a\": 1} x", "[Infinity"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(1 << 20)).is_err());
    }
}
