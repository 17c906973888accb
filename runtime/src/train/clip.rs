//! Gradient clipping.

use crate::graph::trace::{Handle, type_of};
use crate::ops::elementwise::{self as ew, BinaryKind, UnaryKind};
use crate::ops::{leaf, reduce};

/// How gradients are limited before the optimizer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Clip {
    /// Not at all.
    #[default]
    None,
    /// All gradients are multiplied by `min(1, bound / (norm + 1e-6))`, where `norm` is the
    /// root of the sum of all squares (Pascanu et al. 2013). PyTorch: `clip_grad_norm_`.
    Norm(f64),
    /// Every value is limited to `-bound..=bound`. PyTorch: `clip_grad_value_`.
    Value(f64),
}

/// The root of the sum of squares over all of `grads`: a real scalar.
pub fn global_norm(grads: &[Handle]) -> Handle {
    let squares = grads.iter().map(|g| {
        let all: Vec<usize> = (0..type_of(*g).rank()).collect();
        reduce::sum_squares(*g, &all)
    });
    let total = squares.reduce(ew::add).unwrap_or_else(|| leaf::scalar(0.0));
    ew::unary(UnaryKind::Sqrt, total)
}

impl Clip {
    /// The limited gradients; `norm` is their [`global_norm`].
    pub fn apply(self, grads: &[Handle], norm: Handle) -> Vec<Handle> {
        match self {
            Clip::None => grads.to_vec(),
            Clip::Norm(bound) => {
                let factor = ew::div(leaf::scalar(bound), ew::add(norm, leaf::scalar(1e-6)));
                let factor = ew::binary(BinaryKind::Min, factor, leaf::scalar(1.0));
                grads.iter().map(|g| ew::mul(*g, factor)).collect()
            }
            Clip::Value(bound) => {
                let limit = |g| {
                    let low = ew::binary(BinaryKind::Max, g, leaf::scalar(-bound));
                    ew::binary(BinaryKind::Min, low, leaf::scalar(bound))
                };
                grads.iter().map(|g| limit(*g)).collect()
            }
        }
    }
}
