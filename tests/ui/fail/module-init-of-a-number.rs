//! Initializers fill parameters.

use mobilis::prelude::*;

#[neural_module]
pub struct Net {
    #[init(normal(0.02))]
    rate: f32,
}
