//! Sound: from files to samples, from samples to what encoders see.
//!
//! Shared by recognition ([`crate::asr`]) and synthesis. Samples are `f32` in `-1.0 ..= 1.0`, one
//! channel, at a rate in hertz.
//!
//! - [`load`] reads a whole recording and [`Reader`] one of any length block by block: a file,
//!   bytes, or a stream; any rate and number of channels.
//! - [`resample`] changes the rate; [`wav`] writes files.
//! - [`augment`] changes recordings and features at random, for training.
//! - [`features`] makes spectrograms of samples, in the graph of the model that sees them.

pub mod augment;
mod edits;
mod error;
pub mod features;
mod media;
mod opus;
mod reader;
mod resample;
mod source;
pub mod wav;

pub use error::AudioError;
pub use reader::{Channel, Reader, Wanted, load};
pub use resample::{Resampler, resample};

/// What is worked on together: recordings, and the texts of what is said in them.
pub use crate::llm::Batch;

use mobilis_runtime::prelude::*;

axes! {
    /// Samples, of the longest recording in the batch.
    pub Samples;
    /// Frames of features, of the longest recording in the batch.
    pub Frames;
    /// Samples from one frame to the next.
    pub Hop;
    /// Features of a frame.
    pub Mels;
}
