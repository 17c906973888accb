//! A function is not a module.

use mobilis::prelude::*;

#[neural_module]
pub fn forward() {}
