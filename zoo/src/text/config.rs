//! `tokenizer_config.json`: special tokens, what is added to a text, chat templates.
//!
//! Read as `transformers` reads it, with the files that stand beside it: `special_tokens_map.json`,
//! `added_tokens.json`, `chat_template.jinja`, `chat_template.json`,
//! `additional_chat_templates/NAME.jinja`. The file is the model's, not the user's, so keys that are not
//! known here are passed over; those that are known are checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::TextError;

/// The names of the special tokens in a configuration, in the order in which they are told.
pub const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token that is found in text before anything else is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id, where the file tells it.
    pub id: Option<u32>,
    /// Whether decoding may leave it out.
    pub special: bool,
    /// Takes spaces before it along.
    pub lstrip: bool,
    /// Takes spaces after it along.
    pub rstrip: bool,
    /// Not within a word.
    pub single_word: bool,
    /// Looked for in the normalised text.
    pub normalized: bool,
}

impl AddedToken {
    /// A special token with nothing else to it.
    pub fn special(content: impl Into<String>) -> AddedToken {
        AddedToken {
            content: content.into(),
            id: None,
            special: true,
            lstrip: false,
            rstrip: false,
            single_word: false,
            normalized: false,
        }
    }
}

/// What `tokenizer_config.json` and the files beside it say.
#[derive(Clone, Debug, Default)]
pub struct TokenizerConfig {
    /// The class of `transformers` that reads the tokenizer: `LlamaTokenizerFast`, ….
    pub class: Option<String>,
    /// Special tokens by their names (`bos_token`, …, and names that a model adds).
    pub special: BTreeMap<String, String>,
    /// Tokens beside those of the vocabulary, and special ones of it, by id where it is known.
    pub added: Vec<AddedToken>,
    /// Whether encoding puts the first token; where the file says.
    pub add_bos: Option<bool>,
    /// Whether encoding puts the last token; where the file says.
    pub add_eos: Option<bool>,
    /// Whether a space goes before a text; where the file says.
    pub add_prefix_space: Option<bool>,
    /// Whether letters are made small; where the file says.
    pub do_lower_case: Option<bool>,
    /// Whether decoding tidies spaces before punctuation.
    pub clean_up_tokenization_spaces: bool,
    /// T5's sentinel tokens.
    pub extra_ids: Option<u32>,
    /// The most tokens that the model was trained on, where the file says.
    pub max_length: Option<usize>,
    /// Chat templates by name; the one that is used without asking is `default`.
    pub templates: BTreeMap<String, String>,
}

impl TokenizerConfig {
    /// What a folder says; a folder without these files says nothing.
    ///
    /// # Errors
    /// A file that cannot be read, is not JSON, or has a value of another kind than expected.
    pub fn from_folder(folder: &Path) -> Result<TokenizerConfig, TextError> {
        let mut config = match read_json(&folder.join("tokenizer_config.json"))? {
            Some(value) => TokenizerConfig::from_json(&value, "tokenizer_config.json")?,
            None => TokenizerConfig::default(),
        };
        if let Some(value) = read_json(&folder.join("special_tokens_map.json"))? {
            let map = object(&value, "special_tokens_map.json")?;
            config.read_special(map, "special_tokens_map.json")?;
        }
        // Of the time before `added_tokens_decoder`: texts and their ids.
        if let Some(value) = read_json(&folder.join("added_tokens.json"))? {
            for (text, id) in object(&value, "added_tokens.json")? {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| TextError::invalid("added_tokens.json", format!("`{text}` has no id")))?;
                match config.added.iter_mut().find(|t| t.content == *text) {
                    Some(token) => token.id = token.id.or(Some(id)),
                    None => config.added.push(AddedToken {
                        id: Some(id),
                        special: false,
                        ..AddedToken::special(text.clone())
                    }),
                }
            }
        }
        config.added.sort_by_key(|token| (token.id.is_none(), token.id));
        if let Some(value) = read_json(&folder.join("chat_template.json"))? {
            let map = object(&value, "chat_template.json")?;
            config.read_templates(map.get("chat_template"), "chat_template.json")?;
        }
        // A file of its own wins over what the configuration holds.
        if let Some(text) = read_text(&folder.join("chat_template.jinja"))? {
            config.templates.insert("default".into(), text);
        }
        let more = folder.join("additional_chat_templates");
        if let Ok(entries) = std::fs::read_dir(&more) {
            for entry in entries.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|e| e == "jinja")
                    && let Some(name) = path.file_stem().and_then(|s| s.to_str())
                    && let Some(text) = read_text(&path)?
                {
                    config.templates.insert(name.to_owned(), text);
                }
            }
        }
        Ok(config)
    }

    /// What the JSON of a `tokenizer_config.json` says; `origin` is for errors.
    ///
    /// # Errors
    /// A value of another kind than expected.
    pub fn from_json(value: &Value, origin: &str) -> Result<TokenizerConfig, TextError> {
        let map = object(value, origin)?;
        let flag = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(TextError::invalid(origin, format!("`{key}` must be true or false, found {other}"))),
        };
        let whole = |key: &str| map.get(key).and_then(Value::as_u64);
        let mut config = TokenizerConfig {
            class: map.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned),
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_prefix_space: flag("add_prefix_space")?,
            do_lower_case: flag("do_lower_case")?,
            clean_up_tokenization_spaces: flag("clean_up_tokenization_spaces")?.unwrap_or(false),
            extra_ids: whole("extra_ids").and_then(|n| u32::try_from(n).ok()),
            // "No limit" is written as a number that no text reaches.
            max_length: whole("model_max_length").and_then(|n| usize::try_from(n).ok()),
            ..TokenizerConfig::default()
        };
        if let Some(Value::Object(table)) = map.get("added_tokens_decoder") {
            for (id, token) in table {
                let id = id
                    .parse::<u32>()
                    .map_err(|_| TextError::invalid(origin, format!("`added_tokens_decoder` has `{id}` for an id")))?;
                let mut token = added(token, origin, "added_tokens_decoder")?;
                token.id = Some(id);
                config.added.push(token);
            }
            config.added.sort_by_key(|token| token.id);
        }
        config.read_special(map, origin)?;
        config.read_templates(map.get("chat_template"), origin)?;
        Ok(config)
    }

    /// The text of a special token: `bos_token`, ….
    pub fn token(&self, name: &str) -> Option<&str> {
        self.special.get(name).map(String::as_str)
    }

    fn read_special(&mut self, map: &Map<String, Value>, origin: &str) -> Result<(), TextError> {
        let mut list = Vec::new();
        for name in SPECIAL_NAMES {
            match map.get(name) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    let token = special(value, origin, name)?;
                    self.special.entry(name.to_owned()).or_insert_with(|| token.content.clone());
                    list.push(token);
                }
            }
        }
        // Both spellings: `additional_special_tokens` before, `extra_special_tokens` since.
        for name in ["additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"] {
            match map.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Array(tokens)) => {
                    for token in tokens {
                        list.push(special(token, origin, name)?);
                    }
                }
                Some(Value::Object(tokens)) => {
                    for (key, token) in tokens {
                        let token = special(token, origin, key)?;
                        self.special.entry(key.clone()).or_insert_with(|| token.content.clone());
                        list.push(token);
                    }
                }
                Some(other) => {
                    return Err(TextError::invalid(origin, format!("`{name}` must be a list, found {other}")));
                }
            }
        }
        for token in list {
            if !self.added.iter().any(|a| a.content == token.content) {
                self.added.push(token);
            }
        }
        Ok(())
    }

    fn read_templates(&mut self, value: Option<&Value>, origin: &str) -> Result<(), TextError> {
        let wrong = |what: &Value| {
            TextError::invalid(
                origin,
                format!("`chat_template` must be a text or a list of {{name, template}}, found {what}"),
            )
        };
        match value {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                self.templates.insert("default".into(), text.clone());
            }
            Some(Value::Array(list)) => {
                for entry in list {
                    let part = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
                    let (Some(name), Some(text)) = (part("name"), part("template")) else { return Err(wrong(entry)) };
                    self.templates.insert(name, text);
                }
            }
            Some(Value::Object(map)) => {
                for (name, text) in map {
                    let text = text.as_str().ok_or_else(|| wrong(text))?;
                    self.templates.insert(name.clone(), text.to_owned());
                }
            }
            Some(other) => return Err(wrong(other)),
        }
        Ok(())
    }
}

/// A special token: its text, or an object with the text in it.
fn special(value: &Value, origin: &str, name: &str) -> Result<AddedToken, TextError> {
    Ok(AddedToken { special: true, ..added(value, origin, name)? })
}

fn added(value: &Value, origin: &str, name: &str) -> Result<AddedToken, TextError> {
    let content = match value {
        Value::String(text) => return Ok(AddedToken::special(text.clone())),
        Value::Object(map) => map.get("content").and_then(Value::as_str),
        _ => None,
    };
    let content = content.ok_or_else(|| {
        TextError::invalid(
            origin,
            format!("`{name}` must be a token's text, or an object with `content`, found {value}"),
        )
    })?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(AddedToken {
        content: content.to_owned(),
        id: None,
        special: flag("special"),
        lstrip: flag("lstrip"),
        rstrip: flag("rstrip"),
        single_word: flag("single_word"),
        normalized: flag("normalized"),
    })
}

fn object<'a>(value: &'a Value, origin: &str) -> Result<&'a Map<String, Value>, TextError> {
    value.as_object().ok_or_else(|| TextError::invalid(origin, "must be a JSON object"))
}

/// A file's JSON, or nothing where there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, TextError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| TextError::invalid(path.display().to_string(), e.to_string()))
}

/// A file's text, or nothing where there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Io { path: path.to_owned(), source }),
    }
}
