//! The tokens of a Canary: one tokenizer, or NeMo's *aggregate* of one for each language.
//!
//! An aggregate numbers the pieces of its parts one after another, in the order of the configuration: those of
//! `spl_tokens` (prompts, times, the end) first, then those of each language (`AggregateTokenizer`, `CanaryTokenizer`).
//! A text is encoded by the part of its language; what is written is the pieces of all parts, whose `▁` is a space.

use super::prompt::PromptError;
use crate::import::nemo::Artifacts;
use crate::text::{TextError, Tokenizer};
use serde_json::Value;
use std::collections::HashMap;

/// The part of an aggregate that has the special tokens.
const SPECIAL: &str = "spl_tokens";

/// The tokenizer of one language.
struct Part {
    language: String,
    tokenizer: Tokenizer,
    /// The number of its first piece.
    first: u32,
}

/// The tokens of a Canary.
pub struct Vocabulary {
    parts: Vec<Part>,
    /// All pieces, in order.
    pieces: Vec<String>,
    special: HashMap<String, u32>,
}

impl Vocabulary {
    /// The tokens that `tokenizer` of a configuration describes.
    ///
    /// # Errors
    /// Tokenizers of other kinds, files that are missing or faulty.
    pub fn open(settings: &Value, artifacts: &Artifacts) -> Result<Vocabulary, TextError> {
        let one = |language: &str, settings: &Value| Ok((language.to_string(), artifacts.tokenizer(settings)?));
        let languages = settings.get("langs").and_then(Value::as_object);
        let parts: Result<Vec<_>, TextError> = match languages {
            Some(all) => all.iter().map(|(language, settings)| one(language, settings)).collect(),
            None => Ok(vec![one("", settings)?]),
        };
        Ok(Self::of(parts?))
    }

    /// The tokens of these languages; of one tokenizer without a language, its own.
    pub fn of(tokenizers: Vec<(String, Tokenizer)>) -> Vocabulary {
        let (mut parts, mut pieces, mut special) = (vec![], vec![], HashMap::new());
        let aggregate = tokenizers.len() > 1;
        for (language, tokenizer) in tokenizers {
            let first = pieces.len() as u32;
            for id in 0..tokenizer.len() as u32 {
                let piece = tokenizer.token(id).unwrap_or_default();
                let marked = piece.starts_with("<|") && piece.ends_with("|>") || piece == "<pad>";
                if marked && (!aggregate || language == SPECIAL) {
                    special.insert(piece.clone(), first + id);
                }
                pieces.push(piece);
            }
            parts.push(Part { language, tokenizer, first });
        }
        Vocabulary { parts, pieces, special }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// A special token by its name: `<|en|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.special.get(name).copied()
    }

    /// Languages that are written: those of an aggregate's parts; else those that there are tokens for.
    pub fn languages(&self) -> Vec<String> {
        let mut all: Vec<String> = match self.parts.len() {
            0 | 1 => {
                let code = |name: &String| Some(name.strip_prefix("<|")?.strip_suffix("|>")?.to_string());
                let short = |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_lowercase());
                self.special.keys().filter_map(code).filter(short).collect()
            }
            _ => self.parts.iter().map(|p| p.language.clone()).filter(|l| l != SPECIAL).collect(),
        };
        all.sort();
        all
    }

    /// The tokens of a text in a language.
    ///
    /// # Errors
    /// A language that has no tokenizer, what that cannot encode.
    pub fn encode(&self, text: &str, language: &str) -> Result<Vec<u32>, TextError> {
        // Parts may be named by the country too, as `en-US`.
        let named = |part: &&Part| part.language == language || part.language.split('-').next() == Some(language);
        let part = match &self.parts[..] {
            [one] => Some(one),
            all => all.iter().find(named),
        };
        let part = part.ok_or_else(|| TextError::Invalid {
            what: "tokenizer".into(),
            why: format!("it has no part for `{language}`, but for {}", self.languages().join(", ")),
        })?;
        Ok(part.tokenizer.encode(text, false)?.into_iter().map(|id| id + part.first).collect())
    }

    /// A token's text, with a space before it where it begins a word.
    pub fn piece(&self, id: u32) -> String {
        self.pieces.get(id as usize).map(|piece| piece.replace('\u{2581}', " ")).unwrap_or_default()
    }

    /// The text of tokens, without space around it.
    pub fn text(&self, ids: &[u32]) -> String {
        let text = match &self.parts[..] {
            [one] => one.tokenizer.decode(ids, false),
            _ => ids.iter().map(|id| self.piece(*id)).collect(),
        };
        text.trim().to_string()
    }

    /// What a token of time says: `<|12|>` is 12 frames of the encoder.
    pub fn frames(&self, id: u32) -> Option<u32> {
        self.pieces.get(id as usize)?.strip_prefix("<|")?.strip_suffix("|>")?.parse().ok()
    }

    /// The special token that ends a text.
    ///
    /// # Errors
    /// A tokenizer without it.
    pub fn end(&self) -> Result<u32, PromptError> {
        let token = super::prompt::END;
        self.special(token).ok_or_else(|| PromptError { token: token.into(), what: "an end that" })
    }
}
