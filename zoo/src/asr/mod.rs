//! Speech recognition: what was said, by whom, and when.
//!
//! A recording goes in as samples ([`crate::audio`]); a [`Recognizer`] gives a [`Transcript`]. What its network
//! gives for each frame becomes tokens in [`decode`]; [`metrics`] says how right they are. What it learns from is read
//! by [`data`].

pub mod conformer;
pub mod conv;
pub mod data;
pub mod decode;
pub mod metrics;
pub mod speaker;
pub mod train;
mod transcript;
pub mod vad;
pub mod voice;
pub mod whisper;

pub use transcript::{Segment, Transcript, Word};

/// A model that hears, whatever its family.
pub trait Recognizer {
    /// Why it failed.
    type Error: std::error::Error;

    /// The rate that it wants, in hertz.
    fn sample_rate(&self) -> u32;

    /// What is said in recordings at that rate. A recording's transcript does not depend on those
    /// beside it.
    ///
    /// # Errors
    /// What the model cannot take: each family says what.
    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, Self::Error>;
}
