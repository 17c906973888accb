//! Recognizers.

mod canary;
mod conformer;
mod parakeet;
mod searching;
#[path = "../support/mod.rs"]
mod support;
mod whisper;
