//! Sound: from files to samples, from samples to what encoders see.
//!
//! Shared by recognition ([`crate::asr`]) and synthesis. Samples are `f32` in `-1.0 ..= 1.0`, one
//! channel, at a rate in hertz.

use mobilis_runtime::prelude::*;

axes! {
    /// Recordings that are worked on together.
    pub Batch;
    /// Samples, of the longest recording in the batch.
    pub Samples;
    /// Frames of features, of the longest recording in the batch.
    pub Frames;
}
