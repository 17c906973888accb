//! SentencePiece models: unigram and BPE over raw text, spaces included.
//!
//! A text is rewritten ([`Normalizer`]), cut into pieces of the vocabulary by the model's kind, and what
//! the vocabulary lacks becomes the unknown piece, or its bytes where the model has pieces for bytes.
//! This is an engine of its own, beside the `tokenizers` crate, because the results have to be those of
//! google/sentencepiece to the last id: the crate rewrites grapheme by grapheme and takes BPE merges in
//! another form.
//!
//! [`Model`] is made from a `.model` file ([`proto`]), from a GGUF vocabulary
//! ([`gguf`](crate::text::gguf)), or from texts ([`train`](mod@train)). [`Model::encode`] gives ids with the places in the original text.
//! Kudo and Richardson 2018, "SentencePiece"; Kudo 2018, "Subword regularization" (unigram).

mod bpe;
pub mod normalize;
pub mod proto;
pub mod train;
pub mod trie;
mod unigram;

pub use normalize::{Normalized, Normalizer};
pub use trie::Trie;

use super::decoder::byte_token;
use super::error::TextError;
use std::collections::HashMap;

/// How text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ModelKind {
    /// The most probable cut (Viterbi).
    #[default]
    Unigram,
    /// Neighbours are joined, the best score first.
    Bpe,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// Text.
    Normal,
    /// What stands for text that the vocabulary lacks.
    Unknown,
    /// `<s>`, …: never found in text.
    Control,
    /// Found in text before anything else.
    UserDefined,
    /// Not given out.
    Unused,
    /// One byte.
    Byte,
}

impl PieceKind {
    /// The kind by its number in files (1 to 6; the same in `.model` and GGUF files).
    pub fn from_number(number: u64) -> Option<PieceKind> {
        Some(match number {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return None,
        })
    }

    /// Its number in files.
    pub fn number(self) -> u64 {
        match self {
            PieceKind::Normal => 1,
            PieceKind::Unknown => 2,
            PieceKind::Control => 3,
            PieceKind::UserDefined => 4,
            PieceKind::Unused => 5,
            PieceKind::Byte => 6,
        }
    }
}

/// A piece of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its text, with `▁` for spaces.
    pub text: String,
    /// Its logarithm of probability (unigram), or minus its rank (BPE).
    pub score: f32,
    /// What it is for.
    pub kind: PieceKind,
}

/// What a `.model` file says.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The vocabulary, in the order of ids.
    pub pieces: Vec<Piece>,
    /// How text is cut.
    pub kind: ModelKind,
    /// Whether what the vocabulary lacks becomes bytes.
    pub byte_fallback: bool,
    /// The normaliser's table; empty for none.
    pub charsmap: Vec<u8>,
    /// Puts a space in front of texts.
    pub add_dummy_prefix: bool,
    /// Joins spaces.
    pub remove_extra_whitespaces: bool,
    /// Writes spaces as `▁`.
    pub escape_whitespaces: bool,
    /// Spaces end words.
    pub space_as_suffix: bool,
    /// What the unknown piece is decoded to.
    pub unknown_surface: String,
    /// The unknown piece's id; the first piece of that kind where it is not told.
    pub unknown: Option<u32>,
    /// The first token's id.
    pub bos: Option<u32>,
    /// The last token's id.
    pub eos: Option<u32>,
    /// The padding's id.
    pub pad: Option<u32>,
}

impl Default for ModelFile {
    /// What the format means where a file says nothing.
    fn default() -> ModelFile {
        ModelFile {
            pieces: Vec::new(),
            kind: ModelKind::Unigram,
            byte_fallback: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            space_as_suffix: false,
            unknown_surface: " \u{2047} ".into(),
            unknown: None,
            bos: Some(1),
            eos: Some(2),
            pad: None,
        }
    }
}

/// A piece found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: u32,
    /// The bytes of the original text that it stands for.
    pub start: usize,
    /// One past them.
    pub end: usize,
}

/// A SentencePiece model, ready to encode.
#[derive(Debug)]
pub struct Model {
    kind: ModelKind,
    pieces: Vec<Piece>,
    /// Pieces that text is cut into: normal, user-defined and unused ones.
    words: HashMap<Box<str>, u32>,
    /// The same for the unigram search.
    trie: Trie,
    /// User-defined pieces.
    symbols: Trie,
    bytes: Option<Box<[u32; 256]>>,
    unknown: u32,
    lowest: f32,
    highest: f32,
    /// How texts are rewritten.
    pub normalizer: Normalizer,
    /// What the unknown piece is decoded to.
    pub unknown_surface: String,
}

impl Model {
    /// A model from what a file says.
    ///
    /// # Errors
    /// No unknown piece, or a broken normaliser.
    pub fn new(file: ModelFile) -> Result<Model, TextError> {
        let wrong = |why: &str| TextError::invalid("SentencePiece model", why);
        u32::try_from(file.pieces.len()).map_err(|_| wrong("more than 2^32 pieces"))?;
        let first = || file.pieces.iter().position(|p| p.kind == PieceKind::Unknown);
        let unknown = file.unknown.map(|id| id as usize).or_else(first).filter(|id| *id < file.pieces.len());
        let unknown = unknown.ok_or_else(|| wrong("no piece is of the kind `unknown`"))? as u32;
        let mut words = HashMap::with_capacity(file.pieces.len());
        let mut bytes = Box::new([unknown; 256]);
        let (mut lowest, mut highest) = (f32::INFINITY, f32::NEG_INFINITY);
        for (id, piece) in (0..).zip(&file.pieces) {
            match piece.kind {
                PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
                    words.entry(piece.text.as_str().into()).or_insert(id);
                    if piece.kind == PieceKind::Normal {
                        lowest = lowest.min(piece.score);
                        highest = highest.max(piece.score);
                    }
                }
                PieceKind::Byte => {
                    if let Some(byte) = byte_token(&piece.text) {
                        bytes[usize::from(byte)] = id;
                    }
                }
                PieceKind::Unknown | PieceKind::Control => {}
            }
        }
        let of = |keep: fn(PieceKind) -> bool| {
            let pieces = (0..).zip(&file.pieces).filter(move |(_, p)| keep(p.kind));
            Trie::new(pieces.map(|(id, p): (u32, &Piece)| (p.text.as_bytes(), id)))
        };
        let trie = match file.kind {
            ModelKind::Unigram => of(|k| matches!(k, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused)),
            ModelKind::Bpe => Trie::default(),
        };
        let symbols = of(|k| k == PieceKind::UserDefined);
        let mut normalizer = Normalizer::with_charsmap(&file.charsmap)?;
        normalizer.add_dummy_prefix = file.add_dummy_prefix;
        normalizer.remove_extra_whitespaces = file.remove_extra_whitespaces;
        normalizer.escape_whitespaces = file.escape_whitespaces;
        normalizer.space_as_suffix = file.space_as_suffix;
        Ok(Model {
            kind: file.kind,
            words,
            trie,
            symbols,
            bytes: file.byte_fallback.then_some(bytes),
            unknown,
            lowest: if lowest.is_finite() { lowest } else { 0.0 },
            highest: if highest.is_finite() { highest } else { 0.0 },
            normalizer,
            unknown_surface: file.unknown_surface,
            pieces: file.pieces,
        })
    }

    /// The vocabulary, in the order of ids.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The unknown piece's id.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Cuts a text; `prefix` says whether a space may be put in front of it.
    pub fn encode(&self, text: &str, prefix: bool) -> Vec<Found> {
        let normalized = self.normalizer.normalize(text, &self.symbols, prefix);
        let mut cut = Vec::new();
        match self.kind {
            ModelKind::Unigram => self.unigram(&normalized.text, &mut cut),
            ModelKind::Bpe => self.bpe(&normalized.text, &mut cut),
        }
        let mut out: Vec<Found> = Vec::with_capacity(cut.len());
        let mut at = 0;
        let mut after_unknown = false;
        for (length, id) in cut {
            let (start, end) = (normalized.origin[at], normalized.origin[at + length]);
            let unknown = id == self.unknown;
            match (&self.bytes, out.last_mut()) {
                (Some(bytes), _) if unknown => {
                    for byte in normalized.text[at..at + length].bytes() {
                        out.push(Found { id: bytes[usize::from(byte)], start, end });
                    }
                }
                // A run of unknown pieces is one.
                (None, Some(last)) if unknown && after_unknown => last.end = end,
                _ => out.push(Found { id, start, end }),
            }
            after_unknown = unknown;
            at += length;
        }
        out
    }
}
