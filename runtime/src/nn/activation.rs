//! Activations and dropout as modules.

use crate::graph::trace::Handle;
use crate::language::element::Float;
use crate::language::shape::Shape;
use crate::neural_module;
use crate::ops::elementwise::{UnaryKind, activation as f, mul, scale, unary};
use crate::tensor::Tensor;

/// An activation by name, for layers whose configuration chooses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activation {
    /// `x Phi(x)` with the exact error function (`gelu`).
    #[default]
    Gelu,
    /// Its approximation by a hyperbolic tangent (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `max(x, 0)` (`relu`).
    Relu,
    /// `max(x, 0)^2` (So et al. 2021, "Primer"; `relu2`).
    ReluSquared,
    /// `x sigmoid(x)` (`silu`, `swish`).
    Silu,
    /// `x sigmoid(1.702 x)` (`quick_gelu`).
    QuickGelu,
    /// `x tanh(softplus(x))` (`mish`).
    Mish,
    /// Hyperbolic tangent (`tanh`).
    Tanh,
    /// `1 / (1 + exp(-x))` (`sigmoid`).
    Sigmoid,
    /// `x` (`linear`).
    Identity,
}

impl Activation {
    /// The activation of an untyped value.
    pub fn apply(self, x: Handle) -> Handle {
        match self {
            Activation::Gelu => f::gelu(x),
            Activation::GeluTanh => f::gelu_tanh(x),
            Activation::Relu => f::relu(x),
            Activation::ReluSquared => {
                let positive = f::relu(x);
                mul(positive, positive)
            }
            Activation::Silu => f::silu(x),
            Activation::QuickGelu => mul(x, unary(UnaryKind::Sigmoid, scale(x, 1.702))),
            Activation::Mish => f::mish(x),
            Activation::Tanh => unary(UnaryKind::Tanh, x),
            Activation::Sigmoid => unary(UnaryKind::Sigmoid, x),
            Activation::Identity => x,
        }
    }
}

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident = $function:expr;)*) => {$(
        $(#[$doc])*
        #[neural_module]
        pub struct $name;

        #[neural_module]
        impl $name {
            /// Each value by itself.
            pub fn forward<S: Shape, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
                Tensor::from_raw(($function)(x.raw()))
            }
        }
    )*};
}

activations! {
    /// `max(x, 0)`. PyTorch: `nn.ReLU`.
    Relu = f::relu;
    /// `x Phi(x)` with the normal distribution function `Phi` (Hendrycks and Gimpel 2016).
    /// PyTorch: `nn.GELU`.
    Gelu = f::gelu;
    /// [`Gelu`], approximated by a hyperbolic tangent. PyTorch: `nn.GELU("tanh")`.
    GeluTanh = f::gelu_tanh;
    /// `x sigmoid(x)` (Elfwing et al. 2018). PyTorch: `nn.SiLU`.
    Silu = f::silu;
    /// `x tanh(softplus(x))` (Misra 2019). PyTorch: `nn.Mish`.
    Mish = f::mish;
    /// `log(1 + exp(x))`. PyTorch: `nn.Softplus`.
    Softplus = f::softplus;
    /// `1 / (1 + exp(-x))`. PyTorch: `nn.Sigmoid`.
    Sigmoid = |x| unary(UnaryKind::Sigmoid, x);
    /// Hyperbolic tangent. PyTorch: `nn.Tanh`.
    Tanh = |x| unary(UnaryKind::Tanh, x);
}

/// `max(x, slope * x)`. PyTorch: `nn.LeakyReLU(slope)`.
#[neural_module]
pub struct LeakyRelu {
    /// The slope below 0.
    #[default(0.01)]
    pub slope: f64,
}

#[neural_module]
impl LeakyRelu {
    /// Each value by itself.
    pub fn forward<S: Shape, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        Tensor::from_raw(f::leaky_relu(x.raw(), self.slope))
    }
}

/// In training each value becomes 0 with probability `rate` and grows by `1 / (1 - rate)`
/// otherwise (Srivastava et al. 2014); in inference values pass. PyTorch: `nn.Dropout(rate)`.
#[neural_module]
pub struct Dropout {
    /// The probability that a value is dropped.
    #[default(0.1)]
    pub rate: f64,
}

impl Dropout {
    /// Dropout with a probability.
    pub fn new(rate: f64) -> Self {
        Dropout { rate }
    }
}

#[neural_module]
impl Dropout {
    /// Each value by itself.
    pub fn forward<S: Shape, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        x.dropout(self.rate)
    }
}
