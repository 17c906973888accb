//! Speech recognition: what was said, by whom, and when.
//!
//! A recording goes in as samples ([`crate::audio`]); a [`Recognizer`] gives a [`Transcript`]. What its network
//! gives for each frame becomes tokens in [`decode`]; [`metrics`] says how right they are. What it learns from is read
//! by [`data`], how well it hears by [`evaluate`](mod@evaluate).

pub mod canary;
pub mod conformer;
pub mod conv;
pub mod data;
pub mod decode;
mod error;
pub mod evaluate;
pub mod formats;
pub mod front;
pub mod live;
pub mod metrics;
pub mod open;
pub mod speaker;
pub mod train;
mod transcript;
pub mod vad;
pub mod voice;
pub mod wav2vec2;
pub mod whisper;
pub(crate) mod windows;

pub use error::AsrError;
pub use transcript::{Segment, Transcript, Word};
pub use windows::Windows;

use crate::audio::AudioError;
use std::time::Duration;

/// A recording in blocks, as [`crate::audio::Reader`] gives them.
pub type Blocks<'a> = Box<dyn Iterator<Item = Result<Vec<f32>, AudioError>> + 'a>;

/// Who is told how it goes: the recording's number, how much of it is done, and its new segments.
pub type Tell<'a> = dyn FnMut(usize, Duration, &[Segment]) + 'a;

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

    /// The same for recordings of any length, which come in blocks. A recording that fails does not
    /// hinder the others. Families that work in windows hold no more of a recording than one; this, for the
    /// others, reads one recording after another, each as a whole.
    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, Self::Error>>
    where
        Self::Error: From<AudioError>,
    {
        let mut all = vec![];
        for (index, blocks) in recordings.into_iter().enumerate() {
            let samples: Result<Vec<Vec<f32>>, AudioError> = blocks.collect();
            let found = samples.map_err(Self::Error::from).and_then(|s| self.transcribe(&[&s.concat()]));
            let found = found.map(|mut one| one.pop().unwrap_or_default());
            if let Ok(one) = &found {
                tell(index, one.duration, &one.segments);
            }
            all.push(found);
        }
        all
    }

    /// Listens to a recording while it comes in. This hears stretches of speech between pauses; models for streams
    /// hear every sound once.
    ///
    /// # Errors
    /// What the model cannot take.
    fn live(&self, options: &live::LiveOptions) -> Result<LiveOf<'_, Self::Error>, Self::Error> {
        Ok(Box::new(live::Stretches::new(self, *options)))
    }
}

/// A recording that comes in, heard by a recognizer with such errors.
pub type LiveOf<'a, E> = Box<dyn live::Live<Error = E> + 'a>;
