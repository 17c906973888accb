//! Recognizers.

mod canary;
mod conformer;
#[path = "../support/mod.rs"]
mod support;
mod whisper;
