//! Whisper: recordings in nearly a hundred languages, transcribed or translated into English.
//!
//! Radford et al. 2022 (<https://arxiv.org/abs/2212.04356>). The encoder hears 30 s at a time; the decoder
//! writes what is said, as a language model that looks at the sound, and names times as it goes. From a
//! recording to its words:
//!
//! | file | holds |
//! |---|---|
//! | `model.rs` | encoder and decoder as modules |
//! | `network.rs` | the loaded model and its programs |
//! | `tokens.rs` | special tokens: languages, tasks, times |
//! | `rules.rs` | what may be said next |
//! | `write.rs` | a window's text, written anew where it is not plausible |
//! | `parts.rs` | a window's text cut into segments |
//! | `words.rs` | the times of words |
//! | `recognize.rs` | recordings of any length |

mod model;
mod network;
mod parts;
mod recognize;
mod rules;
mod tokens;
mod words;
mod write;

pub use model::{AnyWhisper, WhisperAxes, WhisperModel, whisper};
pub use network::{Heard, Listener, Network, Scores, SpectrogramArray};
pub use recognize::{RATE, Task, TranscribeOptions, WhisperRecognizer};
pub use tokens::Tokens;
pub use write::Manner;
