//! Text in, token ids out, and back.
//!
//! A [`Tokenizer`] is made from what a checkpoint carries: a folder's `tokenizer.json`,
//! `vocab.json` + `merges.txt`, `vocab.txt` or SentencePiece `.model` ([`files`]), or the vocabulary
//! of a GGUF file ([`GgufVocabulary`]). It encodes text to ids, decodes ids to text, whole or token by
//! token ([`Detokenizer`]). A [`ChatTemplate`] turns messages into the text that a model was trained on.
//!
//! Nothing here knows of models: ids and strings are all that goes in and out.
//!
//! | file | holds |
//! |---|---|
//! | `tokenizer.rs` | [`Tokenizer`], [`Encoding`]: one face over the engines |
//! | `files.rs` | what of a folder makes a tokenizer, and in which order it is looked for |
//! | `config.rs` | `tokenizer_config.json`: special tokens, what is added to a text, templates |
//! | `sentencepiece/` | the engine for SentencePiece models: normaliser, unigram, BPE |
//! | `gguf.rs`, `pre.rs` | GGUF vocabularies, and how each kind splits text before merging |
//! | `decoder.rs` | from tokens to text, in stages that can stop after any token |
//! | `chat.rs` | chat templates |

pub mod chat;
pub mod config;
pub mod decoder;
pub mod error;
pub mod files;
pub mod gguf;
mod pieces;
mod pre;
pub mod sentencepiece;
pub mod tokenizer;

pub use chat::{ChatOptions, ChatTemplate, Message};
pub use config::TokenizerConfig;
pub use decoder::Detokenizer;
pub use error::TextError;
pub use gguf::{GgufVocabulary, TokenType};
pub use tokenizer::{Encoding, Tokenizer};
