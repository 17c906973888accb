//! Tokenizers and chat templates against the original implementations.

#[path = "../support/mod.rs"]
mod support;

mod constraint;
mod forms;
mod golden;
mod hostile;
mod llama_cpp;
mod stream;
