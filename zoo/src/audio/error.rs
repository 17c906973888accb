//! What can be wrong with a recording.

use std::time::Duration;

/// What is read, for messages.
pub(super) const KNOWN: &str =
    "WAV, AIFF, FLAC, MP3, AAC, MP4 and M4A, Matroska and WebM, or OGG with Vorbis, Opus or FLAC";

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The operating system refuses.
    #[error("cannot {action} `{place}`: {source}")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file, or what else it is.
        place: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not a byte.
    #[error("`{place}` is empty, where a recording is expected ({KNOWN})")]
    Empty {
        /// The file, or what else it is.
        place: String,
    },
    /// No container that is known, or a damaged one.
    #[error("`{place}` cannot be read as a recording ({KNOWN}): {fault}")]
    Format {
        /// The file, or what else it is.
        place: String,
        /// What is wrong.
        fault: String,
    },
    /// A known container with a codec that is not.
    #[error(
        "`{place}` holds sound that cannot be decoded: {fault}; convert it, for example with `ffmpeg -i IN OUT.flac`"
    )]
    Codec {
        /// The file, or what else it is.
        place: String,
        /// What is wrong.
        fault: String,
    },
    /// The bytes are faulty within the recording.
    #[error("`{place}` is damaged at {:.3} s: {fault}", .at.as_secs_f64())]
    Damaged {
        /// The file, or what else it is.
        place: String,
        /// How much was read before.
        at: Duration,
        /// What is wrong.
        fault: String,
    },
    /// The recording ends before its header says. What there is was given before this error.
    #[error("`{place}` is cut off: its header promises {:.3} s, {:.3} s are there", .promised.as_secs_f64(), .found.as_secs_f64())]
    Truncated {
        /// The file, or what else it is.
        place: String,
        /// What the header says.
        promised: Duration,
        /// What was given.
        found: Duration,
    },
    /// A sample that is no sound.
    #[error("`{place}` has {value} as a sample at {:.3} s, where a number around -1 to 1 is expected", .at.as_secs_f64())]
    Sample {
        /// The file, or what else it is.
        place: String,
        /// Where.
        at: Duration,
        /// The sample.
        value: f32,
    },
    /// A rate beyond what can be resampled.
    #[error("`{place}` has {rate} samples a second; {} to {} can be read", super::resample::RATES.start(), super::resample::RATES.end())]
    Rate {
        /// The file, or what else it is.
        place: String,
        /// The rate in hertz.
        rate: u32,
    },
    /// A channel that is not there.
    #[error("channel {asked} of `{place}` was asked for; it has {found}, counted from 0")]
    Channel {
        /// The file, or what else it is.
        place: String,
        /// The channel asked for.
        asked: usize,
        /// How many there are.
        found: usize,
    },
    /// A part beyond the end.
    #[error("the part of `{place}` from {:.3} s on was asked for; it lasts {:.3} s", .offset.as_secs_f64(), .length.as_secs_f64())]
    Beyond {
        /// The file, or what else it is.
        place: String,
        /// Where the part was to begin.
        offset: Duration,
        /// How long the recording is.
        length: Duration,
    },
}
