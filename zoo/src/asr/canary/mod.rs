//! Canary: recordings to texts in one of several languages, as a prompt asks.
//!
//! An attention encoder-decoder (Puvvada et al. 2024, <https://arxiv.org/abs/2406.19674>), NeMo's
//! `EncDecMultiTaskModel`: the encoder is a FastConformer ([`super::conformer`]), the decoder a Transformer
//! ([`decoder`]) that is fed with special tokens for languages and form ([`prompt`]) and then with what it
//! says. [`Canary`] is both, from a file; it writes greedily or by beam search, over caches. [`CanaryRecognizer`] has
//! the features and the tokens ([`vocabulary`]) too, and hears recordings of any length.

pub mod decoder;
pub mod network;
pub mod prompt;
pub mod recognizer;
pub mod vocabulary;

pub use decoder::{AnyCanary, CanaryAxes, CanaryDecoder};
pub use network::{Canary, CanaryError, Writing};
pub use prompt::{Format, Prompt, PromptError};
pub use recognizer::{CanaryOptions, CanaryRecognizer};
pub use vocabulary::Vocabulary;
