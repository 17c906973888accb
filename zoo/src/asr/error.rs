//! Why a recording was not transcribed.

use super::canary::CanaryError;
use super::conformer::RecognizeError;
use super::decode::DecodeError;
use super::voice::VoiceError;
use crate::audio::AudioError;
use crate::import::ImportError;
use crate::llm::config::ConfigError;
use crate::llm::family::OpenError;
use crate::llm::session::SessionError;
use crate::text::TextError;
use mobilis_runtime::program::ProgramError;

/// Why a recognizer cannot be had, or cannot hear.
#[derive(Debug, thiserror::Error)]
pub enum AsrError {
    /// A recording that cannot be read.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A place that cannot be opened.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A model that cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A configuration that makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tokenizer that cannot be had, or a text that it cannot encode.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A text that cannot be continued.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A Conformer that cannot be had or run.
    #[error(transparent)]
    Conformer(#[from] RecognizeError),
    /// A Canary that cannot be had, or writes nothing.
    #[error(transparent)]
    Canary(#[from] CanaryError),
    /// A convolutional model that cannot be had, or cannot hear.
    #[error(transparent)]
    Voice(#[from] VoiceError),
    /// A search that failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A tokenizer that lacks a token of the family's.
    #[error("the tokenizer has no `{token}`, which {family} needs: is it the one of this model?")]
    Token {
        /// The token.
        token: String,
        /// The family.
        family: &'static str,
    },
    /// A language that the model does not know.
    #[error("`{language}` is not a language of this model: {known}{hint}")]
    Language {
        /// What was asked for.
        language: String,
        /// All that it knows.
        known: String,
        /// The nearest, in words.
        hint: String,
    },
    /// Something that this model cannot do.
    #[error("this model cannot {what}: {why}")]
    Unable {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
}
