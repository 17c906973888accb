//! An enum is not a module.

use mobilis::prelude::*;

#[neural_module]
pub enum Activation {
    Relu,
    Gelu,
}
