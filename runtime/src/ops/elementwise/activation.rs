//! Activations, composed of small operations that programs fuse into one pass.
//!
//! Each is written so that neither its value nor its gradient overflows for large arguments.

use super::{BinaryKind, CompareKind, UnaryKind, binary, compare, mul, neg, scale, select, unary};
use crate::graph::trace::Handle;
use crate::graph::{Dim, Extent};
use crate::language::axis::{Axis, Const, Prod};
use crate::language::element::{Element, Float};
use crate::language::proof;
use crate::language::shape::{Has, Shape};
use crate::ops::{leaf, slice};
use crate::tensor::Tensor;

/// `max(x, 0)`; the gradient at 0 is 0.
pub fn relu(x: Handle) -> Handle {
    // Asking for `x <= 0` lets NaN through.
    let zero = leaf::scalar(0.0);
    select(compare(CompareKind::Le, x, zero), zero, x)
}

/// `x` above 0, `slope * x` below.
pub fn leaky_relu(x: Handle, slope: f64) -> Handle {
    select(compare(CompareKind::Gt, x, leaf::scalar(0.0)), x, scale(x, slope))
}

/// `x` above 0, `alpha * (exp(x) - 1)` below.
pub fn elu(x: Handle, alpha: f64) -> Handle {
    let zero = leaf::scalar(0.0);
    // The exponential is taken of what is negative only: the branch that is not chosen must not
    // overflow, or its gradient is 0 * inf.
    let below = select(compare(CompareKind::Gt, x, zero), zero, x);
    select(compare(CompareKind::Gt, x, zero), x, scale(unary(UnaryKind::Expm1, below), alpha))
}

/// `x * (1 + erf(x / sqrt(2))) / 2`
pub fn gelu(x: Handle) -> Handle {
    let erf = unary(UnaryKind::Erf, scale(x, std::f64::consts::FRAC_1_SQRT_2));
    mul(scale(x, 0.5), super::add(erf, leaf::scalar(1.0)))
}

/// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`
pub fn gelu_tanh(x: Handle) -> Handle {
    let cubic = super::add(x, scale(mul(x, mul(x, x)), 0.044715));
    let tanh = unary(UnaryKind::Tanh, scale(cubic, (2.0 / std::f64::consts::PI).sqrt()));
    mul(scale(x, 0.5), super::add(tanh, leaf::scalar(1.0)))
}

/// `x * sigmoid(x)`
pub fn silu(x: Handle) -> Handle {
    mul(x, unary(UnaryKind::Sigmoid, x))
}

/// `log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))`
pub fn softplus(x: Handle) -> Handle {
    let tail = unary(UnaryKind::Log1p, unary(UnaryKind::Exp, neg(unary(UnaryKind::Abs, x))));
    super::add(binary(BinaryKind::Max, x, leaf::scalar(0.0)), tail)
}

/// `log(sigmoid(x)) = -softplus(-x)`
pub fn log_sigmoid(x: Handle) -> Handle {
    neg(softplus(neg(x)))
}

/// `x * tanh(softplus(x))`
pub fn mish(x: Handle) -> Handle {
    mul(x, unary(UnaryKind::Tanh, softplus(x)))
}

/// The first half of dimension `axis` times the sigmoid of the second; `half` is the result's
/// dimension.
pub fn glu(x: Handle, axis: usize, half: Dim) -> Handle {
    let first = slice::slice(x, axis, Extent::constant(0), 1, half.clone());
    let second = slice::slice(x, axis, half.extent.clone(), 1, half);
    mul(first, unary(UnaryKind::Sigmoid, second))
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `max(x, 0)`; the gradient at 0 is 0. PyTorch: `relu`.
    #[inline]
    pub fn relu(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(relu(self.raw()))
    }

    /// `x` above 0, `slope * x` below. PyTorch: `leaky_relu(x, slope)`.
    #[inline]
    pub fn leaky_relu(self, slope: f64) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(leaky_relu(self.raw(), slope))
    }

    /// `x` above 0, `alpha * (exp(x) - 1)` below (Clevert et al. 2016). PyTorch: `elu(x, alpha)`.
    #[inline]
    pub fn elu(self, alpha: f64) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(elu(self.raw(), alpha))
    }

    /// The Gaussian error linear unit, exact: `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and
    /// Gimpel 2016). PyTorch: `gelu(x)`.
    #[inline]
    pub fn gelu(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(gelu(self.raw()))
    }

    /// The approximation of [`gelu`](Self::gelu) that GPT-2 uses:
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`. PyTorch: `gelu(x, approximate="tanh")`.
    #[inline]
    pub fn gelu_tanh(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(gelu_tanh(self.raw()))
    }

    /// `x * sigmoid(x)`, also called swish. PyTorch: `silu`.
    #[inline]
    pub fn silu(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(silu(self.raw()))
    }

    /// `log(1 + exp(x))`, finite for all finite `x`. PyTorch: `softplus`.
    #[inline]
    pub fn softplus(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(softplus(self.raw()))
    }

    /// `log(sigmoid(x))`, finite for all finite `x`. PyTorch: `logsigmoid`.
    #[inline]
    pub fn log_sigmoid(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(log_sigmoid(self.raw()))
    }

    /// `x * tanh(softplus(x))` (Misra 2019). PyTorch: `mish`.
    #[inline]
    pub fn mish(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(mish(self.raw()))
    }

    /// The gated linear unit (Dauphin et al. 2017): splits `axis` into two halves of the axis
    /// `half` and returns `first * sigmoid(second)`. That `axis` is twice `half` is proved at
    /// build time. PyTorch: `glu(x, dim)`.
    #[inline]
    pub fn glu<A: Axis, H: Axis, P>(self, _axis: A, _half: H) -> Tensor<S::With<H>>
    where
        E: Float,
        S: Has<A, P>,
    {
        const { proof::equal::<A, Prod<Const<2>, H>>("glu splits an axis into two halves") }
        Tensor::from_raw(glu(self.raw(), S::POSITION, H::dim()))
    }
}
