//! What was said, and when.

use std::time::Duration;

/// What a recognizer heard in one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// The whole text.
    pub text: String,
    /// The language, by its ISO 639-1 code, where the model tells.
    pub language: Option<String>,
    /// How long the recording is.
    pub duration: Duration,
    /// The text cut at pauses or at ends of sentences, in the order of time.
    pub segments: Vec<Segment>,
}

/// A part of a transcript that hangs together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Where it begins in the recording.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// What was said.
    pub text: String,
    /// Its tokens, as the model gave them.
    pub tokens: Vec<u32>,
    /// Its words, where the model tells their times.
    pub words: Vec<Word>,
    /// How sure the model is, `0.0 ..= 1.0`, where it was asked.
    pub confidence: Option<f32>,
}

/// A word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// Where it begins in the recording.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// The word without space around it.
    pub text: String,
    /// How sure the model is, `0.0 ..= 1.0`, where it was asked.
    pub confidence: Option<f32>,
}
