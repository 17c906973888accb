//! Tokenizers and chat templates: `tokenizer_golden.json`.
//!
//! The file has `encodings` (a text with its ids, tokens, offsets in characters and what comes back),
//! `pairs` of texts, and `chats` (messages with the text that the template makes of them, or `null`
//! where it refuses). Each kind of result is one line of the report, which counts the cases that
//! differ.

use super::{Check, VerifyError};
use crate::text::{ChatOptions, Message, TextError, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// The cases of one kind of result.
struct Line {
    name: &'static str,
    cases: usize,
    wrong: usize,
    note: String,
}

/// The lines of a report, in the order in which kinds of results appear.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    /// Counts a case; `what` says which one it is.
    fn count(&mut self, name: &'static str, what: &dyn Fn() -> String, found: &Value, expected: &Value) {
        let at = self.0.iter().position(|l| l.name == name).unwrap_or_else(|| {
            self.0.push(Line { name, cases: 0, wrong: 0, note: String::new() });
            self.0.len() - 1
        });
        let line = &mut self.0[at];
        line.cases += 1;
        if found != expected {
            line.wrong += 1;
            if line.note.is_empty() {
                line.note = format!("{}: {}, expected {}", what(), short(found), short(expected));
            }
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Everything that the file of a folder expects.
///
/// # Errors
/// A file that cannot be read or is no JSON, and a tokenizer that cannot be had.
pub fn checks(folder: &Path) -> Result<Vec<Check>, VerifyError> {
    let path = folder.join("tokenizer_golden.json");
    let text = std::fs::read_to_string(&path).map_err(|source| VerifyError::Read { path: path.clone(), source })?;
    let golden: Value = serde_json::from_str(&text)
        .map_err(|e| VerifyError::Read { path, source: std::io::Error::new(std::io::ErrorKind::InvalidData, e) })?;
    let tokenizer = Tokenizer::from_folder(folder)?;
    let list = |key: &str| golden[key].as_array().cloned().unwrap_or_default();
    let mut lines = Lines::default();
    for case in list("encodings") {
        encoding(&tokenizer, &case, &mut lines)?;
    }
    for case in list("pairs") {
        let (a, b) = (case["a"].as_str().unwrap_or_default(), case["b"].as_str().unwrap_or_default());
        let what = || format!("{a:?} and {b:?}");
        let found = tokenizer.encode_pair(a, b, true)?;
        lines.count(
            "tokenizer.pairs",
            &what,
            &json!([found.ids, found.type_ids]),
            &json!([case["ids"], case["type_ids"]]),
        );
    }
    for (i, case) in list("chats").into_iter().enumerate() {
        chat(&tokenizer, i, &case, &mut lines)?;
    }
    Ok(lines.0.into_iter().map(check).collect())
}

fn encoding(tokenizer: &Tokenizer, case: &Value, lines: &mut Lines) -> Result<(), VerifyError> {
    let text = case["text"].as_str().unwrap_or_default();
    let what = || short(&json!(text));
    let found = tokenizer.encode_with_offsets(text, true)?;
    // The sentencepiece library knows neither offsets nor special tokens.
    let results = [
        ("tokenizer.ids", "ids", json!(found.ids)),
        ("tokenizer.tokens", "tokens", json!(found.tokens)),
        ("tokenizer.offsets", "offsets", json!(found.offsets)),
        ("tokenizer.type_ids", "type_ids", json!(found.type_ids)),
        ("tokenizer.ids_no_special", "ids_no_special", json!(tokenizer.encode(text, false)?)),
        ("tokenizer.decoded", "decoded", json!(tokenizer.decode(&found.ids, false))),
        ("tokenizer.decoded_skip_special", "decoded_skip_special", json!(tokenizer.decode(&found.ids, true))),
    ];
    for (name, key, found) in results {
        if let Some(expected) = case.get(key) {
            lines.count(name, &what, &found, expected);
        }
    }
    Ok(())
}

fn chat(tokenizer: &Tokenizer, i: usize, case: &Value, lines: &mut Lines) -> Result<(), VerifyError> {
    let template = tokenizer.chat_template(None)?;
    let messages = case["messages"].as_array().cloned().unwrap_or_default();
    let messages = messages.into_iter().map(Message::from_json).collect::<Result<Vec<_>, TextError>>()?;
    let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap_or_default();
    let what = || format!("chat {i}");
    let rendered = match template.render(&messages, &ChatOptions { add_generation_prompt, ..ChatOptions::default() }) {
        Ok(text) => json!(text),
        Err(TextError::Refused { .. }) => Value::Null,
        Err(e) => return Err(e.into()),
    };
    lines.count("chat.rendered", &what, &rendered, &case["rendered"]);
    if let Some(text) = rendered.as_str() {
        lines.count("chat.ids", &what, &json!(tokenizer.encode(text, false)?), &case["ids"]);
    }
    Ok(())
}

fn check(line: Line) -> Check {
    Check {
        name: line.name.into(),
        sizes: vec![line.cases],
        absolute: Some(line.wrong as f64),
        relative: Some(line.wrong as f64 / line.cases as f64),
        tolerance: 0.0,
        passed: line.wrong == 0,
        note: line.note,
    }
}
