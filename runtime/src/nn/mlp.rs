//! The feed-forward half of a transformer block.

use super::activation::Activation;
use super::linear::Linear;
use crate::language::axis::Axis;
use crate::language::element::Float;
use crate::language::shape::EndsWith;
use crate::neural_module;
use crate::ops::elementwise::mul;
use crate::tensor::Tensor;

/// Two linear layers with an activation between: `down(act(up(x)))`, from `H` to `F` and back.
/// Gelu unless changed; with biases.
#[neural_module]
pub struct Mlp<H: Axis, F: Axis> {
    /// `[F, H]`
    pub up_proj: Linear<H, F>,
    /// `[H, F]`
    pub down_proj: Linear<F, H>,
    /// What is between.
    #[hyper]
    pub activation: Activation,
}

impl<H: Axis, F: Axis> Mlp<H, F> {
    /// Another activation.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same without biases.
    #[must_use]
    pub fn no_bias(mut self) -> Self {
        self.up_proj.bias = None;
        self.down_proj.bias = None;
        self
    }
}

#[neural_module]
impl<H: Axis, F: Axis> Mlp<H, F> {
    /// Any shape that ends with `H`.
    pub fn forward<S: EndsWith<H>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        let inner: Tensor<(F,)> = Tensor::from_raw(self.activation.apply(self.up_proj.forward(x).raw()));
        Tensor::from_raw(self.down_proj.forward(inner).raw())
    }
}

/// A gated feed-forward layer: `down(act(gate(x)) * up(x))` (Shazeer 2020), from `H` to `F` and
/// back. Silu unless changed (with Gelu it is GeGLU); without biases, as in Llama.
#[neural_module]
pub struct SwiGlu<H: Axis, F: Axis> {
    /// `[F, H]`
    #[default(Linear::default().no_bias())]
    pub gate_proj: Linear<H, F>,
    /// `[F, H]`
    #[default(Linear::default().no_bias())]
    pub up_proj: Linear<H, F>,
    /// `[H, F]`
    #[default(Linear::default().no_bias())]
    pub down_proj: Linear<F, H>,
    /// What the gate goes through.
    #[hyper]
    #[default(Activation::Silu)]
    pub activation: Activation,
}

impl<H: Axis, F: Axis> SwiGlu<H, F> {
    /// Another activation of the gate.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }
}

#[neural_module]
impl<H: Axis, F: Axis> SwiGlu<H, F> {
    /// Any shape that ends with `H`.
    pub fn forward<S: EndsWith<H>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        let gate = self.activation.apply(self.gate_proj.forward(x).raw());
        // The layers keep all axes but the last, so the shape of the whole is `S` again.
        let inner: Tensor<(F,)> = Tensor::from_raw(mul(gate, self.up_proj.forward(x).raw()));
        Tensor::from_raw(self.down_proj.forward(inner).raw())
    }
}
