//! The vocabulary of a GGUF file as a tokenizer.
//!
//! GGUF keeps a vocabulary under `tokenizer.ggml.*`: a kind, tokens with scores and types, merges, ids of
//! special tokens. What each kind means is fixed by llama.cpp (`llama-vocab.cpp`), and it gives the ids
//! that the model's own tokenizer gives:
//!
//! | kind | engine |
//! |---|---|
//! | `llama` | SentencePiece BPE by scores, bytes for what is missing, no normalisation |
//! | `t5` | SentencePiece unigram with its normaliser |
//! | `gpt2`, `gemma4` | BPE by merges, text split as `pre` says |
//! | `bert` | WordPiece; `▁` starts a word there, where BERT's files mark the others by `##` |
//!
//! Tokens of the types `control` and `user-defined` are found in texts before anything else.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::config::{AddedToken, TokenizerConfig};
use super::decoder::SPACE;
use super::error::TextError;
use super::files;
use super::pieces::PieceTokenizer;
use super::pre::{self, Pre};
use super::sentencepiece::{Model, ModelFile, ModelKind, Piece, PieceKind};
use super::tokenizer::Tokenizer;

/// What a token is for (`tokenizer.ggml.token_type`): the kinds of SentencePiece.
pub type TokenType = PieceKind;

/// What a GGUF file says of its vocabulary; each field is a key, given beside it.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// `general.architecture`.
    pub architecture: String,
    /// `tokenizer.ggml.model`: `llama`, `gpt2`, `bert`, `t5`, `gemma4`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is split before merging.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, in the order of ids.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`; none, or as many as tokens.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`; none, or as many as tokens. By [`PieceKind::from_number`].
    pub types: Vec<TokenType>,
    /// `tokenizer.ggml.merges`: two tokens with a space between.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: the end of a turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// `tokenizer.ggml.seperator_token_id` (so spelt there).
    pub separator: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding: Option<u32>,
    /// `tokenizer.ggml.cls_token_id`.
    pub cls: Option<u32>,
    /// `tokenizer.ggml.mask_token_id`.
    pub mask: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`.
    pub charsmap: Vec<u8>,
    /// `tokenizer.chat_template` as `default`, `tokenizer.chat_template.NAME` as `NAME`.
    pub templates: BTreeMap<String, String>,
}

const SOURCE: &str = "GGUF vocabulary";

impl Tokenizer {
    /// A tokenizer from the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// Lists of unequal lengths, ids outside the vocabulary, merges of unknown tokens, and kinds that are
    /// not built.
    pub fn from_gguf(vocabulary: GgufVocabulary) -> Result<Tokenizer, TextError> {
        let v = vocabulary.checked()?;
        let config = v.config();
        match v.model.as_str() {
            "llama" => v.pieces(ModelKind::Bpe, config),
            "t5" => v.pieces(ModelKind::Unigram, config),
            "gpt2" | "gemma4" => v.merged(config),
            "bert" => v.word_pieces(config),
            other => {
                let known = ["llama", "t5", "gpt2", "gemma4", "bert"];
                let like = mobilis_runtime::suggest::did_you_mean(other, known);
                Err(TextError::unsupported(
                    SOURCE,
                    format!("its kind (tokenizer.ggml.model) is `{other}`{like}; {} are built", known.join(", ")),
                ))
            }
        }
    }
}

impl GgufVocabulary {
    fn checked(mut self) -> Result<GgufVocabulary, TextError> {
        let wrong = |why: String| Err(TextError::invalid(SOURCE, why));
        let count = self.tokens.len();
        if count == 0 || u32::try_from(count).is_err() {
            return wrong(format!("expected 1 to 2^32 tokens, found {count}"));
        }
        for (name, length) in [("scores", self.scores.len()), ("token_type", self.types.len())] {
            if length != 0 && length != count {
                return wrong(format!("tokenizer.ggml.{name} has {length} entries for {count} tokens"));
            }
        }
        if let Some(id) = self.scores.iter().position(|s| s.is_nan()) {
            return wrong(format!("the score of token {id} is not a number"));
        }
        for (name, id) in self.named() {
            if id as usize >= count {
                return wrong(format!("{name} is {id}, but there are {count} tokens"));
            }
        }
        self.scores.resize(count, 0.0);
        self.types.resize(count, PieceKind::Normal);
        Ok(self)
    }

    /// Special tokens by their names in a configuration.
    fn named(&self) -> Vec<(&'static str, u32)> {
        let all = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("eot_token", self.eot),
            ("unk_token", self.unknown),
            ("sep_token", self.separator),
            ("pad_token", self.padding),
            ("cls_token", self.cls),
            ("mask_token", self.mask),
        ];
        all.into_iter().filter_map(|(name, id)| Some((name, id?))).collect()
    }

    fn config(&self) -> TokenizerConfig {
        let text = |id: u32| self.tokens[id as usize].clone();
        TokenizerConfig {
            special: self.named().into_iter().map(|(name, id)| (name.to_owned(), text(id))).collect(),
            added: self.added(),
            add_bos: self.add_bos,
            add_eos: self.add_eos,
            templates: self.templates.clone(),
            ..TokenizerConfig::default()
        }
    }

    /// The tokens that are looked for in texts.
    fn added(&self) -> Vec<AddedToken> {
        // Phi-3 takes the spaces after its special tokens along.
        let strips = self.architecture == "phi3" && self.model == "llama";
        let found = (0..).zip(self.tokens.iter().zip(&self.types));
        found
            .filter(|(_, (text, kind))| !text.is_empty() && matches!(kind, PieceKind::Control | PieceKind::UserDefined))
            .map(|(id, (text, kind))| AddedToken {
                id: Some(id),
                special: *kind == PieceKind::Control,
                rstrip: strips && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str()),
                ..AddedToken::special(text.clone())
            })
            .collect()
    }

    /// What goes around a text: where the file does not say, what the kind does.
    fn around(&self, bos: bool, eos: bool) -> (Option<u32>, Option<u32>) {
        (self.bos.filter(|_| self.add_bos.unwrap_or(bos)), self.eos.filter(|_| self.add_eos.unwrap_or(eos)))
    }

    fn pieces(self, kind: ModelKind, config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let unigram = kind == ModelKind::Unigram;
        let (before, after) = self.around(!unigram, unigram);
        let added = self.added();
        let byte_fallback = self.types.contains(&PieceKind::Byte);
        let parts = self.tokens.into_iter().zip(self.scores).zip(self.types);
        let file = ModelFile {
            // User-defined tokens are cut out of texts before the model sees them.
            pieces: parts.map(|((text, score), kind)| Piece { text, score, kind }).collect(),
            kind,
            byte_fallback,
            charsmap: self.charsmap,
            add_dummy_prefix: self.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: self.remove_extra_whitespaces.unwrap_or(false),
            unknown: self.unknown.or(Some(0)),
            ..ModelFile::default()
        };
        let around = |id: Option<u32>| id.into_iter().collect();
        let pieces = PieceTokenizer::new(Model::new(file)?, &added, around(before), around(after))?;
        Ok(Tokenizer::from_pieces(pieces, config, SOURCE))
    }

    fn merged(self, config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let kind = match (self.model.as_str(), self.pre.as_deref()) {
            ("gemma4", _) => Pre::Gemma4,
            (_, None) => Pre::Default,
            (_, Some(name)) => Pre::from_name(name)?,
        };
        let (bos, eos) = self.around(kind.adds_bos(), false);
        let mut merges = Vec::with_capacity(self.merges.len());
        for (i, line) in self.merges.iter().enumerate() {
            // The first token may itself begin with a space.
            let first = line.chars().next().map_or(0, char::len_utf8);
            let cut = line[first..].find(' ').map(|at| first + at);
            let Some(cut) = cut.filter(|cut| cut + 1 < line.len()) else {
                let why =
                    format!("tokenizer.ggml.merges[{i}]: expected two tokens with a space between, found `{line}`");
                return Err(TextError::invalid(SOURCE, why));
            };
            merges.push((line[..cut].to_owned(), line[cut + 1..].to_owned()));
        }
        let text = |id: Option<u32>| id.map(|id| self.tokens[id as usize].clone());
        let (bos, eos, unknown) = (text(bos), text(eos), text(self.unknown));
        let mut vocab: AHashMap<String, u32> = AHashMap::with_capacity(self.tokens.len());
        for (id, token) in (0..).zip(self.tokens) {
            vocab.entry(token).or_insert(id);
        }
        let unknown = unknown.filter(|_| kind.falls_back_to_bytes());
        let model = files::bpe(vocab, merges, kind, unknown, SOURCE)?;
        let mut library = pre::library(model, kind, false)?;
        files::surround(&mut library, bos.as_deref(), eos.as_deref(), SOURCE)?;
        Tokenizer::from_library(library, config, SOURCE)
    }

    fn word_pieces(self, config: TokenizerConfig) -> Result<Tokenizer, TextError> {
        let mut vocab: AHashMap<String, u32> = AHashMap::with_capacity(self.tokens.len());
        for (id, (token, kind)) in (0..).zip(self.tokens.into_iter().zip(self.types)) {
            let spelt = match (token.strip_prefix(SPACE), kind) {
                (_, PieceKind::Control | PieceKind::Unknown | PieceKind::UserDefined) => token,
                (Some(start), _) => start.to_owned(),
                (None, _) => format!("##{token}"),
            };
            vocab.entry(spelt).or_insert(id);
        }
        let library = files::word_pieces(vocab, &config, true, SOURCE)?;
        Tokenizer::from_library(library, config, SOURCE)
    }
}
