//! From a file and a command line to one document.
//!
//! A file is TOML, YAML or JSON by its ending. A value from the command line (`model.optim.lr=0.01`) is
//! read as YAML, so it may be a number, a list, a section; `key=null` takes one away. What is set must
//! not lead through something that is no section, but may be new: whether it is known is for who reads
//! the document. Then text is filled in as OmegaConf does: `${a.b}` alone is the value at `a.b`, within
//! other text it is its text. `???` stands for what must be given.

use super::RecipeError;
use crate::import::nemo::yaml;
use serde_json::{Map, Value};
use std::path::Path;

/// A recipe longer than this is none.
const LONGEST: u64 = 16 << 20;
/// How often `${..}` may lead to another.
const DEEPEST: usize = 32;
/// The most bytes that texts may be filled in to.
const MOST_FILLED: usize = 1 << 24;

/// Reads a recipe and applies settings from a command line, each `key.sub=value`.
///
/// # Errors
/// A file that cannot be read or is no document; a setting that cannot be applied; references that lead
/// nowhere or in a circle; what must be given and is not.
pub fn read(path: &Path, overrides: &[String]) -> Result<Value, RecipeError> {
    let whole = |fault: String| RecipeError::new("", format!("recipe {}: {fault}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| whole(e.to_string()))?.len();
    if length > LONGEST {
        return Err(whole(format!("{length} bytes; at most {LONGEST} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| whole(e.to_string()))?;
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let document = parse(&text, &ending).map_err(whole)?;
    resolve(document, overrides)
}

/// A document of one of the languages `toml`, `yaml`, `yml`, `json`.
///
/// # Errors
/// What the language's parser says; another language; a document that is no table.
pub fn parse(text: &str, language: &str) -> Result<Value, String> {
    let document = match language {
        "toml" => toml::from_str::<Value>(text).map_err(|e| e.to_string())?,
        "json" => serde_json::from_str(text).map_err(|e| e.to_string())?,
        "yaml" | "yml" => yaml::parse(text)?,
        other => return Err(format!("the ending `{other}` is not known: .toml, .yaml or .json is expected")),
    };
    match document {
        Value::Object(_) => Ok(document),
        _ => Err("a table of sections is expected".into()),
    }
}

/// Applies settings and fills in references.
///
/// # Errors
/// Those of [`read`] but for the file's.
pub fn resolve(mut document: Value, overrides: &[String]) -> Result<Value, RecipeError> {
    for setting in overrides {
        apply(&mut document, setting)?;
    }
    let mut left = MOST_FILLED;
    filled(&document, &document, "", &mut left)
}

fn apply(document: &mut Value, setting: &str) -> Result<(), RecipeError> {
    let Some((key, text)) = setting.split_once('=') else {
        return Err(RecipeError::new("", format!("`{setting}` sets nothing: `key.sub=value` is expected")));
    };
    // Hydra's `+key=value` adds what the file does not have; here nothing has to.
    let key = key.trim().trim_start_matches('+');
    let value = yaml::parse(text).map_err(|e| RecipeError::new(key, format!("cannot be set to `{text}`: {e}")))?;
    let mut at = document;
    let parts: Vec<&str> = key.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        let so_far = || parts[..i].join(".");
        if part.is_empty() {
            return Err(RecipeError::new("", format!("`{setting}` has an empty part in its key")));
        }
        let inner = match at {
            Value::Array(items) => {
                let count = items.len();
                let place = part.parse::<usize>().ok().and_then(|n| items.get_mut(n));
                place.ok_or_else(|| RecipeError::new(so_far(), format!("is a list of {count}, and has no `{part}`")))?
            }
            Value::Object(map) => {
                if last && value.is_null() {
                    map.shift_remove(*part);
                    return Ok(());
                }
                map.entry(part.to_string()).or_insert(Value::Null)
            }
            other => {
                return Err(RecipeError::new(so_far(), format!("is {other}; `{part}` cannot be set in it")));
            }
        };
        if last {
            *inner = value;
            return Ok(());
        }
        if inner.is_null() {
            *inner = Value::Object(Map::new());
        }
        at = inner;
    }
    Ok(())
}

/// `value` with its references filled in from `root`.
fn filled(value: &Value, root: &Value, key: &str, left: &mut usize) -> Result<Value, RecipeError> {
    let within = |part: &str| if key.is_empty() { part.to_string() } else { format!("{key}.{part}") };
    match value {
        Value::String(text) => text_filled(text, root, key, DEEPEST, left),
        Value::Array(items) => {
            let one = |(i, item): (usize, &Value)| filled(item, root, &within(&i.to_string()), left);
            items.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let one = |(k, v): (&String, &Value)| Ok((k.clone(), filled(v, root, &within(k), left)?));
            map.iter().map(one).collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn text_filled(text: &str, root: &Value, key: &str, depth: usize, left: &mut usize) -> Result<Value, RecipeError> {
    let fault = |fault: String| RecipeError::new(key, fault);
    if text == "???" {
        return Err(fault("must be given: set it in the recipe, or with `key=value` behind it".into()));
    }
    if !text.contains("${") {
        // What stands in the document itself is there once; each reference to it makes another.
        if depth < DEEPEST {
            spend(left, text.len(), key)?;
        }
        return Ok(text.into());
    }
    if depth == 0 {
        return Err(fault(format!("refers in a circle: `{text}`")));
    }
    let mut result = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("${") {
        let close = rest[open..].find('}').ok_or_else(|| fault(format!("has a `${{` without `}}`: `{text}`")))?;
        let name = &rest[open + 2..open + close];
        let target = name.split('.').try_fold(root, |at, part| match at {
            Value::Object(map) => map.get(part),
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => None,
        });
        let target = target.ok_or_else(|| fault(format!("refers to `{name}`, which is not in the recipe")))?;
        let found = match target {
            Value::String(inner) => text_filled(inner, root, name, depth - 1, left)?,
            Value::Array(_) | Value::Object(_) => nested(target, root, name, depth - 1, left)?,
            other => other.clone(),
        };
        if open == 0 && open + close + 1 == text.len() {
            return Ok(found);
        }
        result.push_str(&rest[..open]);
        match found {
            Value::String(inner) => result.push_str(&inner),
            other => result.push_str(&other.to_string()),
        }
        spend(left, result.len(), key)?;
        rest = &rest[open + close + 1..];
    }
    result.push_str(rest);
    Ok(result.into())
}

/// Takes so many bytes from what is left to be filled in.
fn spend(left: &mut usize, bytes: usize, key: &str) -> Result<(), RecipeError> {
    let fault = || RecipeError::new(key, format!("refers to what fills in more than {MOST_FILLED} bytes"));
    *left = left.checked_sub(bytes).ok_or_else(fault)?;
    Ok(())
}

/// A list or a section that a reference leads to.
fn nested(value: &Value, root: &Value, key: &str, depth: usize, left: &mut usize) -> Result<Value, RecipeError> {
    if depth == 0 {
        return Err(RecipeError::new(key, "refers in a circle, or to what lies too deep"));
    }
    spend(left, 64, key)?;
    match value {
        Value::String(text) => text_filled(text, root, key, depth, left),
        Value::Array(items) => {
            items.iter().map(|v| nested(v, root, key, depth - 1, left)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let one = |(k, v): (&String, &Value)| {
                spend(left, k.len(), key)?;
                Ok((k.clone(), nested(v, root, key, depth - 1, left)?))
            };
            map.iter().map(one).collect::<Result<_, _>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(text: &str, overrides: &[&str]) -> Result<Value, String> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        resolve(parse(text, "yaml")?, &overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn three_languages_say_the_same() {
        let expected = json!({"name": "x", "model": {"lr": 0.001, "blocks": [{"k": 3}, {"k": 5}], "on": true}});
        let toml = "name = \"x\"\n[model]\nlr = 1e-3\non = true\n[[model.blocks]]\nk = 3\n[[model.blocks]]\nk = 5\n";
        let yaml = "name: x\nmodel:\n  lr: 1e-3\n  blocks: [{k: 3}, {k: 5}]\n  on: true\n";
        assert_eq!(parse(toml, "toml").unwrap(), expected);
        assert_eq!(parse(yaml, "yml").unwrap(), expected);
        assert_eq!(parse(&expected.to_string(), "json").unwrap(), expected);
        assert!(parse("[1]", "json").is_err());
        assert!(parse("a = ", "toml").unwrap_err().contains("line 1"));
        assert!(parse("", "txt").unwrap_err().contains("`txt`"));
    }

    #[test]
    fn settings_from_the_command_line() {
        let text = "model: {lr: 1, blocks: [{k: 3}], old: 2}\nname: x\n";
        let found =
            of(text, &["model.lr=1e-3", "model.blocks.0.k=[1, 2]", "+new.deep=yes", "name='7'", "model.old=null"]);
        let expected = json!({"model": {"lr": 0.001, "blocks": [{"k": [1, 2]}]}, "name": "7", "new": {"deep": "yes"}});
        assert_eq!(found.unwrap(), expected);
        for (setting, says) in [
            ("model.lr", "key.sub=value"),
            ("model.blocks.3=1", "a list of 1"),
            ("name.first=1", "`name` is \"x\""),
            ("a..b=1", "empty part"),
            ("a=[1", "`a` cannot be set"),
        ] {
            let error = of(text, &[setting]).unwrap_err();
            assert!(error.contains(says), "{setting}: {error}");
        }
    }

    #[test]
    fn references() {
        let text = "rate: 16000\nlist: [a, '${rate}']\nmodel: {rate: '${rate}', text: 'at ${rate} Hz: ${list.0}', \
                    all: '${list}', chain: '${model.rate}'}";
        let found = of(text, &[]).unwrap();
        let expected = json!({"rate": 16000, "text": "at 16000 Hz: a", "all": ["a", 16000], "chain": 16000});
        assert_eq!(found["model"]["rate"], expected["rate"]);
        for key in ["text", "all", "chain"] {
            assert_eq!(found["model"][key], expected[key]);
        }
        for (text, says) in [
            ("a: '${b}'\nb: '${a}'", "circle"),
            ("a: {b: '${a}'}", "circle"),
            ("a: ['${a}', '${a}', '${a}', '${a}', '${a}', '${a}', '${a}', '${a}']", "circle"),
            ("a: '${none.x}'", "`none.x`"),
            ("a: '${b'", "without"),
            ("a: {b: '???'}", "`a.b` must be given"),
        ] {
            let error = of(text, &[]).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(of("a: {b: '???'}", &["a.b=1"]).is_ok());
        // Texts that double at every step.
        let bomb =
            (0..40).map(|i| format!("a{}: '${{a{i}}}${{a{i}}}'\n", i + 1)).collect::<String>() + "a0: xxxxxxxxxx\n";
        let error = of(&bomb, &[]).unwrap_err();
        assert!(error.contains("fills in") || error.contains("circle"), "{error}");
        // A long text, or a long key, that many references copy.
        let long = "x".repeat(100_000);
        for long in [format!("a: {long}\n"), format!("a: {{? {long} : 1}}\n"), format!("a: [{long}]\n")] {
            let many = long + "b: [" + &"'${a}', ".repeat(10_000) + "]\n";
            let error = of(&many, &[]).unwrap_err();
            assert!(error.contains("fills in more than"), "{error}");
        }
    }
}
