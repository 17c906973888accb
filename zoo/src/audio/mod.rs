//! Sound: from files to samples, from samples to what encoders see.
//!
//! Shared by recognition ([`crate::asr`]) and synthesis. Samples are `f32` in `-1.0 ..= 1.0`, one
//! channel, at a rate in hertz.
