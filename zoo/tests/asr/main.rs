//! Recognizers.

mod canary;
mod company;
mod conformer;
mod damaged;
mod parakeet;
mod searching;
#[path = "../support/mod.rs"]
mod support;
mod whisper;
