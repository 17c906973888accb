//! A misspelled option.

use mobilis::prelude::*;

#[neural_module(no_defaults)]
pub struct Unit;
