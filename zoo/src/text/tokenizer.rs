//! One face over the engines: text to ids, ids to text.
//!
//! Most tokenizers run on the `tokenizers` crate, which is what `transformers` runs too; SentencePiece
//! models run on [`sentencepiece`](super::sentencepiece). Decoding is ours for both ([`decoder`]),
//! because it has to work token by token.
//!
//! Truncation and padding that a `tokenizer.json` asks for are switched off: how long a text may be, and
//! what a batch is filled up with, is the caller's business.

use std::borrow::Cow;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::chat::ChatTemplate;
use super::config::{AddedToken, TokenizerConfig};
use super::decoder::{self, Detokenizer, Role, SPACE, Stage, byte_of, byte_token};
use super::error::TextError;
use super::pieces::PieceTokenizer;

/// A text as tokens, with what is known of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Ids in the vocabulary.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second of a pair, where the model tells them apart.
    pub type_ids: Vec<u32>,
    /// The vocabulary's spelling.
    pub tokens: Vec<String>,
    /// Where each stands in its text, in characters: first, and one past the last. Tokens that are not
    /// from the text have (0, 0).
    pub offsets: Vec<(usize, usize)>,
}

impl Encoding {
    pub(crate) fn append(&mut self, other: Encoding) {
        self.ids.extend(other.ids);
        self.type_ids.extend(other.type_ids);
        self.tokens.extend(other.tokens);
        self.offsets.extend(other.offsets);
    }
}

pub(crate) enum Engine {
    Library(Box<tokenizers::Tokenizer>),
    Pieces(Box<PieceTokenizer>),
}

struct Inner {
    engine: Engine,
    stages: Vec<Stage>,
    special: HashSet<u32>,
    config: TokenizerConfig,
    size: usize,
    source: String,
}

/// Text to ids and back. Cheap to clone; shared between threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({}, {} tokens)", self.0.source, self.0.size)
    }
}

impl Tokenizer {
    /// A tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// What is not as the format has it.
    pub fn from_json(bytes: &[u8], config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let wrong = |why: String| TextError::invalid("tokenizer.json", why);
        let library = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(wrong)?;
        Tokenizer::from_library(library, config, "tokenizer.json")
    }

    /// The text of a `tokenizer.json`, where the engine is the library's.
    pub fn to_json(&self) -> Option<String> {
        match &self.0.engine {
            Engine::Library(library) => library.to_string(true).ok(),
            Engine::Pieces(_) => None,
        }
    }

    /// A tokenizer from the library's, which `source` describes in errors.
    pub(crate) fn from_library(
        mut library: tokenizers::Tokenizer,
        config: TokenizerConfig,
        source: &str,
    ) -> Result<Tokenizer, TextError> {
        let wrong = |why: String| TextError::invalid(source, why);
        library.with_padding(None);
        library.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        super::files::adjust(&mut library, &config, source)?;
        let mut stages = decoder::stages(library.get_decoder());
        if config.clean_up_tokenization_spaces {
            stages.push(Stage::CleanUp { held: String::new() });
        }
        let added = library.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        // Ids need not be without gaps.
        let last = added.keys().max().map_or(0, |id| *id as usize + 1);
        let size = last.max(library.get_vocab_size(true));
        let engine = Engine::Library(Box::new(library));
        Ok(Tokenizer(Arc::new(Inner { engine, stages, special, config, size, source: source.to_owned() })))
    }

    pub(crate) fn from_pieces(pieces: PieceTokenizer, config: TokenizerConfig, source: &str) -> Tokenizer {
        let normalizer = pieces.normalizer();
        let at_start = normalizer.add_dummy_prefix || normalizer.remove_extra_whitespaces;
        let strip_all = normalizer.remove_extra_whitespaces;
        let mut stages = vec![Stage::Pieces { strip_all, at_start, pending: Vec::new() }];
        if config.clean_up_tokenization_spaces {
            stages.push(Stage::CleanUp { held: String::new() });
        }
        let (special, size) = (pieces.special(), pieces.size());
        let engine = Engine::Pieces(Box::new(pieces));
        Tokenizer(Arc::new(Inner { engine, stages, special, config, size, source: source.to_owned() }))
    }

    /// The ids of a text. With `special`, what the model expects around a text is added (a first token, a
    /// last one); special tokens that are written out in the text are recognised in any case.
    ///
    /// # Errors
    /// What the engine cannot do: a text with a character that the vocabulary has nothing for.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        match &self.0.engine {
            Engine::Library(library) => {
                let encoding = guarded(|| library.encode_fast(text, special)).map_err(|e| refused(text, e))?;
                Ok(encoding.get_ids().to_vec())
            }
            Engine::Pieces(pieces) => Ok(pieces.encode(text, special).ids),
        }
    }

    /// [`encode`](Tokenizer::encode) with tokens, types and places.
    ///
    /// # Errors
    /// As there.
    pub fn encode_with_offsets(&self, text: &str, special: bool) -> Result<Encoding, TextError> {
        match &self.0.engine {
            Engine::Library(library) => {
                let encoding = guarded(|| library.encode_char_offsets(text, special)).map_err(|e| refused(text, e))?;
                Ok(from_library(&encoding))
            }
            Engine::Pieces(pieces) => Ok(pieces.encode(text, special)),
        }
    }

    /// Two texts that belong together: a question and a passage.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_pair(&self, a: &str, b: &str, special: bool) -> Result<Encoding, TextError> {
        match &self.0.engine {
            Engine::Library(library) => {
                let encoding = guarded(|| library.encode_char_offsets((a, b), special)).map_err(|e| refused(a, e))?;
                Ok(from_library(&encoding))
            }
            Engine::Pieces(pieces) => {
                let mut encoding = pieces.encode(a, special);
                encoding.append(pieces.encode(b, special));
                Ok(encoding)
            }
        }
    }

    /// The text of ids; with `skip_special`, without special tokens. Ids outside the vocabulary are left
    /// out, bytes that are no text become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut stream = self.detokenizer(skip_special);
        let mut text = String::new();
        ids.iter().for_each(|id| stream.push_to(*id, &mut text));
        text.push_str(&stream.finish());
        text
    }

    /// Decodes tokens as they come.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer::new(self.clone(), skip_special)
    }

    /// Decodes what follows a prompt: the prompt's text with these parts behind it is the text of all
    /// tokens. A plain [`detokenizer`](Tokenizer::detokenizer) would take the first token for the
    /// beginning of a text, where some kinds drop a space.
    pub fn detokenizer_after(&self, prompt: &[u32], skip_special: bool) -> Detokenizer {
        let mut stream = self.detokenizer(skip_special);
        let mut text = String::new();
        prompt.iter().for_each(|id| stream.push_to(*id, &mut text));
        stream
    }

    /// The vocabulary's spelling of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.0.engine {
            Engine::Library(library) => library.id_to_token(id),
            Engine::Pieces(pieces) => pieces.token(id).map(str::to_owned),
        }
    }

    /// The id of a token in the vocabulary's spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        match &self.0.engine {
            Engine::Library(library) => library.token_to_id(token),
            Engine::Pieces(pieces) => pieces.id(token),
        }
    }

    /// What a token adds to a text, in bytes: part of a character for some. Special tokens add their
    /// names. Nothing for ids outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (token, role) = self.spelling(id)?;
        match role {
            Role::Byte(byte) => return Some(vec![byte]),
            Role::Literal => return Some(token.into_owned().into_bytes()),
            Role::Plain if self.is_special(id) => return Some(token.into_owned().into_bytes()),
            Role::Plain => {}
        }
        let mut text = token.into_owned();
        for stage in &self.0.stages {
            match stage {
                Stage::ByteLevel { .. } => {
                    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
                    return Some(bytes.unwrap_or_else(|| text.into_bytes()));
                }
                Stage::ByteFallback { .. } => {
                    if let Some(byte) = byte_token(&text) {
                        return Some(vec![byte]);
                    }
                }
                Stage::Metaspace { replacement, .. } => text = text.replace(*replacement, " "),
                Stage::Pieces { .. } => text = text.replace(SPACE, " "),
                Stage::Replace { pattern, content } => text = text.replace(pattern.as_str(), content),
                Stage::Suffix { suffix, .. } => text = text.replace(suffix.as_str(), " "),
                Stage::WordPiece { prefix, .. } => {
                    text = match text.strip_prefix(prefix.as_str()) {
                        Some(tail) => tail.to_owned(),
                        None => format!(" {text}"),
                    }
                }
                Stage::Strip { .. } | Stage::Join { .. } | Stage::CleanUp { .. } | Stage::Whole { .. } => {}
            }
        }
        Some(text.into_bytes())
    }

    /// One past the last id.
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary is not a collection to be filled")]
    pub fn len(&self) -> usize {
        self.0.size
    }

    /// Whether a token is special: `<s>`, `<|im_end|>`, ….
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// The ids of all special tokens, in order.
    pub fn special_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.0.special.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The id of a special token by its name in the configuration: `bos_token`, `pad_token`, ….
    pub fn special(&self, name: &str) -> Option<u32> {
        self.id(self.0.config.token(name)?)
    }

    /// The first token's id.
    pub fn bos(&self) -> Option<u32> {
        self.special("bos_token")
    }

    /// The last token's id.
    pub fn eos(&self) -> Option<u32> {
        self.special("eos_token")
    }

    /// The padding's id.
    pub fn pad(&self) -> Option<u32> {
        self.special("pad_token")
    }

    /// What the configuration says.
    pub fn config(&self) -> &TokenizerConfig {
        &self.0.config
    }

    /// Where the tokenizer came from, for messages.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// A chat template of the checkpoint: by name, or the one for use without tools (`default`).
    ///
    /// # Errors
    /// There is none, or it is not a template.
    pub fn chat_template(&self, name: Option<&str>) -> Result<ChatTemplate, TextError> {
        let config = &self.0.config;
        let wanted = name.unwrap_or("default");
        let Some(source) = config.templates.get(wanted) else {
            let names: Vec<&str> = config.templates.keys().map(String::as_str).collect();
            let hint = match (name, names.is_empty()) {
                (_, true) => String::new(),
                (None, false) => format!(" called `default`, only {}", names.join(", ")),
                (Some(name), false) => {
                    let like = mobilis_runtime::suggest::did_you_mean(name, names.iter().copied());
                    format!(" called `{name}`{like} (there are {})", names.join(", "))
                }
            };
            return Err(TextError::NoTemplate { what: self.0.source.clone(), hint });
        };
        ChatTemplate::new(source, &format!("chat template `{wanted}` of {}", self.0.source), config)
    }

    pub(crate) fn stages(&self) -> &[Stage] {
        &self.0.stages
    }

    /// What decoding starts from.
    pub(crate) fn spelling(&self, id: u32) -> Option<(Cow<'_, str>, Role)> {
        match &self.0.engine {
            Engine::Library(library) => {
                // As the library's `decode`: added tokens first.
                let added = library.get_added_vocabulary().simple_id_to_token(id);
                let token = added.or_else(|| library.id_to_token(id))?;
                Some((Cow::Owned(token), Role::Plain))
            }
            Engine::Pieces(pieces) => pieces.spelling(id).map(|(token, role)| (Cow::Borrowed(token), role)),
        }
    }
}

/// Runs the library's code, which panics on some files that are broken in ways it does not expect.
pub(crate) fn guarded<T, E: std::fmt::Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its parts contradict each other (the tokenizers library gave up)".into()),
    }
}

fn refused(text: &str, why: String) -> TextError {
    TextError::Encode { bytes: text.len(), why }
}

fn from_library(encoding: &tokenizers::Encoding) -> Encoding {
    Encoding {
        ids: encoding.get_ids().to_vec(),
        type_ids: encoding.get_type_ids().to_vec(),
        tokens: encoding.get_tokens().to_vec(),
        offsets: encoding.get_offsets().to_vec(),
    }
}

/// The library's form of an added token.
pub(crate) fn library_token(token: &AddedToken) -> tokenizers::AddedToken {
    tokenizers::AddedToken::from(token.content.clone(), token.special)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .single_word(token.single_word)
        .normalized(token.normalized)
}
