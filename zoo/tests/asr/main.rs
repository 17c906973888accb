//! Recognizers.

mod canary;
mod conformer;
mod parakeet;
#[path = "../support/mod.rs"]
mod support;
mod whisper;
