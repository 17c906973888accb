//! Whisper: a recording in, its words out.

mod model;
mod network;

pub use model::{AnyWhisper, WhisperAxes, WhisperModel, whisper};
pub use network::{Heard, Listener, Network, Scores, SpectrogramArray};
