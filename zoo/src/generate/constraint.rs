//! Text that has to follow a rule: a regular expression, or a JSON schema.
//!
//! The rule is compiled by `llguidance` (derivatives of regular expressions under an Earley parser; mask
//! by a walk over the trie of the vocabulary's bytes). At each step [`Constraint::mask`] says which
//! tokens may come, [`Constraint::accept`] takes the one that came. Tokens that end the text are allowed
//! where the rule is fulfilled.
//!
//! A [`ConstraintVocabulary`] is made once for a tokenizer and shared. Rules come from users and may be
//! hostile: their size, the states of their automata and the work for a mask are limited, and what is too
//! much is an error.
//!
//! `llguidance` was chosen before `outlines-core`, which enumerates all states and tokens beforehand and
//! brings a client for the Hub; this one adds seven small crates.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use crate::text::Tokenizer;

/// Why a rule cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// A rule that is wrong, or too large.
    #[error("cannot constrain text by this {kind}: {why}")]
    Rule {
        /// `regular expression` or `JSON schema`.
        kind: &'static str,
        /// What the compiler said.
        why: String,
    },
    /// A token that the rule does not allow.
    #[error("token {id} does not fit the {kind}: {why}")]
    Token {
        /// The token.
        id: u32,
        /// `regular expression` or `JSON schema`.
        kind: &'static str,
        /// What the parser said.
        why: String,
    },
    /// A mask that could not be made.
    #[error("the {kind} takes too much work at this place: {why}")]
    Work {
        /// `regular expression` or `JSON schema`.
        kind: &'static str,
        /// What the parser said.
        why: String,
    },
    /// A tokenizer that cannot be used.
    #[error("cannot constrain text of {what}: {why}")]
    Vocabulary {
        /// The tokenizer.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The longest rule.
const MAX_RULE: usize = 1 << 20;
/// The deepest rule: the compiler goes down by recursion.
const MAX_DEPTH: usize = 64;
/// The longest token that can be part of a constrained text, in bytes.
const MAX_TOKEN: usize = 4096;

/// A tokenizer's vocabulary by bytes, for constraints.
#[derive(Clone)]
pub struct ConstraintVocabulary {
    factory: Arc<ParserFactory>,
    size: usize,
    ends: Vec<u32>,
}

impl ConstraintVocabulary {
    /// The vocabulary of a tokenizer; `ends` are the tokens that end a text.
    ///
    /// # Errors
    /// A vocabulary that the parser refuses.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<ConstraintVocabulary, ConstraintError> {
        let wrong = |why: String| ConstraintError::Vocabulary { what: tokenizer.source().to_owned(), why };
        let size = tokenizer.len();
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(size + 1);
        for id in 0..size as u32 {
            let mut bytes = tokenizer.bytes(id).unwrap_or_default();
            if tokenizer.is_special(id) {
                // The parser's mark for tokens that are no text.
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            if bytes.len() > MAX_TOKEN {
                bytes.clear();
            }
            words.push(bytes);
        }
        let mut ends: Vec<u32> = ends.iter().copied().filter(|id| (*id as usize) < size).collect();
        if ends.is_empty() {
            // The parser needs a token for the end: one that no model gives.
            ends.push(size as u32);
            words.push(vec![TokTrie::SPECIAL_TOKEN_MARKER, b'<', b'e', b'n', b'd', b'>']);
        }
        let count = u32::try_from(words.len()).map_err(|_| wrong("it has more than 2^32 tokens".into()))?;
        let build = || {
            let trie = TokTrie::from(&TokRxInfo::new(count, ends[0]), &words).with_eos_tokens(&ends);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let mut factory = ParserFactory::new_simple(&environment)?;
            factory.quiet();
            factory.limits_mut().verbose_errors = false;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(factory)
        };
        let factory = crate::text::tokenizer::guarded(build).map_err(wrong)?;
        Ok(ConstraintVocabulary { factory: Arc::new(factory), size, ends })
    }
}

impl std::fmt::Debug for ConstraintVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConstraintVocabulary({} tokens)", self.size)
    }
}

/// Which tokens may come next.
#[derive(Clone, Debug)]
pub struct Mask {
    bits: SimpleVob,
    size: usize,
}

impl Mask {
    /// Whether a token may come; tokens outside the vocabulary may not.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.size && self.bits.is_allowed(id)
    }

    /// How many tokens may come.
    pub fn count(&self) -> usize {
        (0..self.size as u32).filter(|id| self.bits.is_allowed(*id)).count()
    }
}

/// A rule, and how much of it is fulfilled.
pub struct Constraint {
    matcher: Matcher,
    vocabulary: ConstraintVocabulary,
    kind: &'static str,
}

impl Clone for Constraint {
    /// A copy that goes its own way from here.
    fn clone(&self) -> Constraint {
        Constraint { matcher: self.matcher.deep_clone(), vocabulary: self.vocabulary.clone(), kind: self.kind }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Constraint({})", self.kind)
    }
}

impl Constraint {
    /// Text that matches a regular expression from its beginning to its end, in the syntax of the crate
    /// `regex` (no look-around, no references back).
    ///
    /// # Errors
    /// An expression that is wrong or too large.
    pub fn regex(vocabulary: &ConstraintVocabulary, pattern: &str) -> Result<Constraint, ConstraintError> {
        let kind = "regular expression";
        if pattern.len() > MAX_RULE {
            return Err(too_long(kind, pattern.len()));
        }
        // Brackets count wherever they are: a bound on depth, not a parser.
        let depth = pattern.bytes().fold((0usize, 0usize), |(now, most), b| match b {
            b'(' | b'[' => (now + 1, most.max(now + 1)),
            b')' | b']' => (now.saturating_sub(1), most),
            _ => (now, most),
        });
        not_deep(kind, depth.1)?;
        Constraint::new(vocabulary, TopLevelGrammar::from_regex(pattern), kind)
    }

    /// JSON that a schema allows.
    ///
    /// # Errors
    /// A schema that is wrong, too large, or uses what is not supported; which, it says.
    pub fn json_schema(vocabulary: &ConstraintVocabulary, schema: &Value) -> Result<Constraint, ConstraintError> {
        let kind = "JSON schema";
        not_deep(kind, nesting(schema))?;
        let length = schema.to_string().len();
        if length > MAX_RULE {
            return Err(too_long(kind, length));
        }
        Constraint::new(vocabulary, TopLevelGrammar::from_json_schema(schema.clone()), kind)
    }

    fn new(
        vocabulary: &ConstraintVocabulary,
        grammar: TopLevelGrammar,
        kind: &'static str,
    ) -> Result<Constraint, ConstraintError> {
        let rule = |why: String| ConstraintError::Rule { kind, why };
        let parser = crate::text::tokenizer::guarded(|| vocabulary.factory.create_parser(grammar)).map_err(rule)?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(why) => Err(rule(why)),
            None => Ok(Constraint { matcher, vocabulary: vocabulary.clone(), kind }),
        }
    }

    /// Which tokens may come next: where the text is complete, those that end it.
    ///
    /// # Errors
    /// A place that takes too much work.
    pub fn mask(&mut self) -> Result<Mask, ConstraintError> {
        let bits = self.matcher.compute_mask_or_eos();
        let bits = bits.map_err(|e| ConstraintError::Work { kind: self.kind, why: e.to_string() })?;
        Ok(Mask { bits, size: self.vocabulary.size })
    }

    /// Takes the token that came.
    ///
    /// # Errors
    /// A token that the mask does not allow.
    pub fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        if self.vocabulary.ends.contains(&id) && self.is_complete() {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|e| ConstraintError::Token { id, kind: self.kind, why: e.to_string() })
    }

    /// Whether the text so far fulfils the rule: it may end here.
    pub fn is_complete(&mut self) -> bool {
        self.matcher.is_stopped() || self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether nothing can follow.
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn too_long(kind: &'static str, length: usize) -> ConstraintError {
    ConstraintError::Rule { kind, why: format!("expected at most {MAX_RULE} bytes, found {length}") }
}

fn not_deep(kind: &'static str, depth: usize) -> Result<(), ConstraintError> {
    if depth > MAX_DEPTH {
        let why = format!("expected at most {MAX_DEPTH} levels within each other, found {depth}");
        return Err(ConstraintError::Rule { kind, why });
    }
    Ok(())
}

/// How deep a value is; values come from parsers that limit it, or from code.
fn nesting(value: &Value) -> usize {
    let mut todo = vec![(value, 1)];
    let mut most = 0;
    while let Some((value, depth)) = todo.pop() {
        most = most.max(depth);
        match value {
            Value::Array(list) => todo.extend(list.iter().map(|v| (v, depth + 1))),
            Value::Object(map) => todo.extend(map.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    most
}
