//! Linear layers.

use crate::language::axis::Axis;
use crate::language::element::Float;
use crate::language::shape::EndsWith;
use crate::module::init::{Init, WithInit};
use crate::ops::{contraction, elementwise};
use crate::tensor::Tensor;
use crate::{Param, neural_module};

/// A linear layer on the last axis: `y = x W^T + b`, from axis `I` to axis `O`.
///
/// The weight is `[O, I]` and starts uniform in `±1/sqrt(I)`, the bias `[O]` starts at zero
/// (PyTorch draws it like the weight). PyTorch: `nn.Linear(I, O)`.
///
/// ```
/// # extern crate mobilis_runtime as mobilis;
/// use mobilis::nn::Linear;
/// use mobilis::prelude::*;
///
/// axes! { Batch; Time; Hidden = 8; Ffn = 4 * Hidden; }
///
/// #[neural_module]
/// struct Up {
///     proj: Linear<Hidden, Ffn>,
/// }
///
/// #[neural_module]
/// impl Up {
///     fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Ffn] {
///         self.proj.forward(x)
///     }
/// }
/// ```
#[neural_module]
pub struct Linear<I: Axis, O: Axis> {
    /// `[O, I]`
    pub weight: Param![O, I],
    /// `[O]`
    #[default(Some(Param::default()))]
    pub bias: Option<Param![O]>,
}

impl<I: Axis, O: Axis> Linear<I, O> {
    /// A new layer with a bias.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same without a bias.
    #[must_use]
    pub fn no_bias(mut self) -> Self {
        self.bias = None;
        self
    }
}

impl<I: Axis, O: Axis> WithInit for Linear<I, O> {
    /// Another initializer for the weight.
    fn with_init(mut self, init: Init) -> Self {
        self.weight = Param::with_init(self.weight, init);
        self
    }
}

#[neural_module]
impl<I: Axis, O: Axis> Linear<I, O> {
    /// `[.., I]` to `[.., O]`.
    pub fn forward<S: EndsWith<I>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S::With<O>> {
        let y = contraction::linear(x.raw(), self.weight.get().raw());
        Tensor::from_raw(match &self.bias {
            Some(bias) => elementwise::add(y, bias.get().raw()),
            None => y,
        })
    }
}
