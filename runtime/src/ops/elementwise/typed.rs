//! Typed elementwise operations: operators, functions, comparisons, choices.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Hidden = 64; }
//!
//! fn soft_threshold(x: Tensor![Batch, Time, Hidden], bound: Tensor![Hidden]) -> Tensor![Batch, Time, Hidden] {
//!     x.sign() * (x.abs() - bound).maximum(0.0)
//! }
//!
//! fn within(position: Tensor![Time; Index], length: Tensor![Time; Index]) -> Tensor![Time; Mask] {
//!     position.lt(length) & position.ge(0)
//! }
//!
//! fn hide(scores: Tensor![Batch, Time], seen: Tensor![Time; Mask]) -> Tensor![Batch, Time] {
//!     scores.masked_fill(!seen, f64::NEG_INFINITY)
//! }
//! ```

use super::{
    BinaryKind, CompareKind, UnaryKind, add, binary, cast, clamp, compare, div, is_finite, maximum, minimum, mul, neg,
    powf, select, sub, unary,
};
use crate::graph::trace::Handle;
use crate::graph::{DType, TensorType};
use crate::language::element::{Base, Element, Float, Index, Indices, Mask, Number, Real, Truth};
use crate::language::shape::{BroadcastTo, Shape};
use crate::ops::leaf;
use crate::tensor::Tensor;

/// What an operation on a tensor of shape `S` and base class `B` takes as its other operand: a
/// tensor of that class which broadcasts onto `S`, or a number of that class.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be combined with a `{B}` tensor of shape `{S}`",
    label = "expected a `{B}` tensor that broadcasts onto `{S}`, or a number",
    note = "numbers are `f64` for real tensors (write `2.0`) and `i32` for indices (write `2`)"
)]
pub trait Operand<S, B> {
    /// The operand in the graph.
    fn operand(self) -> Handle;
}

impl<S: Shape, R: BroadcastTo<S>, F: Element> Operand<S, F::Base> for Tensor<R, F> {
    #[inline]
    fn operand(self) -> Handle {
        self.raw()
    }
}
impl<S: Shape> Operand<S, Real> for f64 {
    fn operand(self) -> Handle {
        leaf::scalar(self)
    }
}
impl<S: Shape> Operand<S, Index> for i32 {
    fn operand(self) -> Handle {
        index(self)
    }
}
impl<S: Shape> Operand<S, Mask> for bool {
    fn operand(self) -> Handle {
        leaf::fill(self as u8 as f64, TensorType::new(vec![], DType::Bool))
    }
}

fn index(value: i32) -> Handle {
    leaf::fill(value as f64, TensorType::new(vec![], DType::I32))
}

fn rem(a: Handle, b: Handle) -> Handle {
    binary(BinaryKind::Rem, a, b)
}

macro_rules! operator {
    ($trait_:ident, $method:ident) => {
        impl<S, R, E, F> std::ops::$trait_<Tensor<R, F>> for Tensor<S, E>
        where
            S: Shape,
            R: BroadcastTo<S>,
            E: Number,
            F: Element<Base = E::Base>,
        {
            type Output = Tensor<S, E::Base>;
            #[inline]
            fn $method(self, other: Tensor<R, F>) -> Self::Output {
                Tensor::from_raw($method(self.raw(), other.raw()))
            }
        }
        impl<S: Shape, E: Float> std::ops::$trait_<f64> for Tensor<S, E> {
            type Output = Tensor<S>;
            #[inline]
            fn $method(self, other: f64) -> Tensor<S> {
                Tensor::from_raw($method(self.raw(), leaf::scalar(other)))
            }
        }
        impl<S: Shape, E: Float> std::ops::$trait_<Tensor<S, E>> for f64 {
            type Output = Tensor<S>;
            #[inline]
            fn $method(self, other: Tensor<S, E>) -> Tensor<S> {
                Tensor::from_raw($method(leaf::scalar(self), other.raw()))
            }
        }
        impl<S: Shape, E: Indices> std::ops::$trait_<i32> for Tensor<S, E> {
            type Output = Tensor<S, Index>;
            #[inline]
            fn $method(self, other: i32) -> Tensor<S, Index> {
                Tensor::from_raw($method(self.raw(), index(other)))
            }
        }
        impl<S: Shape, E: Indices> std::ops::$trait_<Tensor<S, E>> for i32 {
            type Output = Tensor<S, Index>;
            #[inline]
            fn $method(self, other: Tensor<S, E>) -> Tensor<S, Index> {
                Tensor::from_raw($method(index(self), other.raw()))
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
// Whole numbers divide towards minus infinity, so that `a / b * b + a % b = a`.
operator!(Div, div);
operator!(Rem, rem);

impl<S: Shape, E: Number> std::ops::Neg for Tensor<S, E> {
    type Output = Tensor<S, E::Base>;
    #[inline]
    fn neg(self) -> Tensor<S, E::Base> {
        Tensor::from_raw(neg(self.raw()))
    }
}

macro_rules! logical {
    ($trait_:ident, $method:ident, $kind:ident) => {
        impl<S: Shape, R: BroadcastTo<S>, E: Truth, F: Truth> std::ops::$trait_<Tensor<R, F>> for Tensor<S, E> {
            type Output = Tensor<S, Mask>;
            #[inline]
            fn $method(self, other: Tensor<R, F>) -> Self::Output {
                Tensor::from_raw(binary(BinaryKind::$kind, self.raw(), other.raw()))
            }
        }
    };
}
logical!(BitAnd, bitand, And);
logical!(BitOr, bitor, Or);
logical!(BitXor, bitxor, Xor);

impl<S: Shape, E: Truth> std::ops::Not for Tensor<S, E> {
    type Output = Tensor<S, Mask>;
    #[inline]
    fn not(self) -> Tensor<S, Mask> {
        Tensor::from_raw(unary(UnaryKind::Not, self.raw()))
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $kind:ident;)*) => {
        impl<S: Shape, E: Element> Tensor<S, E> {$(
            $(#[$doc])*
            #[inline]
            pub fn $name(self) -> Tensor<S>
            where
                E: Float,
            {
                Tensor::from_raw(unary(UnaryKind::$kind, self.raw()))
            }
        )*}
    };
}
functions! {
    /// `e^x`. PyTorch: `exp`.
    exp = Exp;
    /// `e^x - 1`, exact near 0. PyTorch: `expm1`.
    expm1 = Expm1;
    /// The natural logarithm; NaN below 0. PyTorch: `log`.
    log = Log;
    /// `log(1 + x)`, exact near 0. PyTorch: `log1p`.
    log1p = Log1p;
    /// The square root; NaN below 0. PyTorch: `sqrt`.
    sqrt = Sqrt;
    /// `1 / sqrt(x)`. PyTorch: `rsqrt`.
    rsqrt = Rsqrt;
    /// `1 / x`. PyTorch: `reciprocal`.
    recip = Recip;
    /// The sine of an angle in radians. PyTorch: `sin`.
    sin = Sin;
    /// The cosine of an angle in radians. PyTorch: `cos`.
    cos = Cos;
    /// The hyperbolic tangent. PyTorch: `tanh`.
    tanh = Tanh;
    /// The error function `2 / sqrt(pi) * integral from 0 to x of exp(-t^2)`. PyTorch: `erf`.
    erf = Erf;
    /// `1 / (1 + exp(-x))`. PyTorch: `sigmoid`.
    sigmoid = Sigmoid;
    /// The largest whole number that is not above `x`; no gradient. PyTorch: `floor`.
    floor = Floor;
    /// The smallest whole number that is not below `x`; no gradient. PyTorch: `ceil`.
    ceil = Ceil;
    /// The nearest whole number, halves to the even one; no gradient. PyTorch: `round`.
    round = Round;
}

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident = $kind:ident;)*) => {
        impl<S: Shape, E: Element> Tensor<S, E> {$(
            $(#[$doc])*
            #[inline]
            pub fn $name(self, other: impl Operand<S, E::Base>) -> Tensor<S, Mask>
            where
                E: Number,
            {
                Tensor::from_raw(compare(CompareKind::$kind, self.raw(), other.operand()))
            }
        )*}
    };
}
comparisons! {
    /// Where `x = other`, for a tensor or a number. PyTorch: `eq`.
    eq = Eq;
    /// Where `x` differs from `other`; true for NaN. PyTorch: `ne`.
    ne = Ne;
    /// Where `x < other`; false for NaN. PyTorch: `lt`.
    lt = Lt;
    /// Where `x <= other`; false for NaN. PyTorch: `le`.
    le = Le;
    /// Where `x > other`; false for NaN. PyTorch: `gt`.
    gt = Gt;
    /// Where `x >= other`; false for NaN. PyTorch: `ge`.
    ge = Ge;
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `|x|`. PyTorch: `abs`.
    #[inline]
    pub fn abs(self) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(unary(UnaryKind::Abs, self.raw()))
    }

    /// -1, 0 or 1; no gradient. PyTorch: `sign`.
    #[inline]
    pub fn sign(self) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(unary(UnaryKind::Sign, self.raw()))
    }

    /// The smaller of `x` and `other` (a tensor or a number); NaN where either is. Where both are
    /// equal each gets half of the gradient. PyTorch: `minimum`.
    #[inline]
    pub fn minimum(self, other: impl Operand<S, E::Base>) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(minimum(self.raw(), other.operand()))
    }

    /// The larger of `x` and `other` (a tensor or a number); NaN where either is. Where both are
    /// equal each gets half of the gradient. PyTorch: `maximum`.
    #[inline]
    pub fn maximum(self, other: impl Operand<S, E::Base>) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(maximum(self.raw(), other.operand()))
    }

    /// Values below `low` become `low`, values above `high` become `high`; NaN stays. The
    /// gradient passes where nothing is cut off, the bounds included. PyTorch: `clamp`.
    #[inline]
    pub fn clamp(self, low: impl Operand<S, E::Base>, high: impl Operand<S, E::Base>) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(clamp(self.raw(), low.operand(), high.operand()))
    }

    /// `value` (a tensor or a number) where `mask` is true, `x` elsewhere. PyTorch: `masked_fill`.
    #[inline]
    pub fn masked_fill<R: BroadcastTo<S>, M: Truth>(
        self,
        mask: Tensor<R, M>,
        value: impl Operand<S, E::Base>,
    ) -> Tensor<S, E::Base>
    where
        E: Number,
    {
        Tensor::from_raw(select(mask.raw(), value.operand(), self.raw()))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// `x^exponent` for a number or a tensor; NaN for a negative `x` and a fractional exponent.
    /// PyTorch: `pow`.
    #[inline]
    pub fn pow(self, exponent: impl Exponent<S>) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(exponent.raise(self.raw()))
    }

    /// `x * x`. PyTorch: `square`.
    #[inline]
    pub fn square(self) -> Tensor<S>
    where
        E: Float,
    {
        Tensor::from_raw(mul(self.raw(), self.raw()))
    }

    /// Where `x` is neither infinite nor NaN. PyTorch: `isfinite`.
    #[inline]
    pub fn is_finite(self) -> Tensor<S, Mask>
    where
        E: Float,
    {
        Tensor::from_raw(is_finite(self.raw()))
    }

    /// Where `x` is NaN. PyTorch: `isnan`.
    #[inline]
    pub fn is_nan(self) -> Tensor<S, Mask>
    where
        E: Float,
    {
        Tensor::from_raw(compare(CompareKind::Ne, self.raw(), self.raw()))
    }
}

/// What [`Tensor::pow`] takes as its exponent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an exponent for a tensor of shape `{S}`",
    label = "expected a number (`2.0`) or a real tensor that broadcasts onto `{S}`"
)]
pub trait Exponent<S> {
    /// `x^self`
    fn raise(self, x: Handle) -> Handle;
}
impl<S: Shape> Exponent<S> for f64 {
    fn raise(self, x: Handle) -> Handle {
        powf(x, self)
    }
}
impl<S: Shape, R: BroadcastTo<S>, F: Float> Exponent<S> for Tensor<R, F> {
    fn raise(self, x: Handle) -> Handle {
        binary(BinaryKind::Pow, x, self.raw())
    }
}

impl<R: Shape, M: Element> Tensor<R, M> {
    /// `a` where the mask is true, `b` (a tensor or a number) elsewhere. PyTorch:
    /// `torch.where(mask, a, b)`.
    #[inline]
    pub fn select<S: Shape, E: Element>(self, a: Tensor<S, E>, b: impl Operand<S, E::Base>) -> Tensor<S, E::Base>
    where
        M: Truth,
        R: BroadcastTo<S>,
    {
        Tensor::from_raw(select(self.raw(), a.raw(), b.operand()))
    }
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// As real numbers: indices exactly (up to 2^24), masks as 0 and 1. PyTorch: `x.float()`.
    #[inline]
    pub fn to_real(self) -> Tensor<S> {
        Tensor::from_raw(cast(self.raw(), DType::F32))
    }

    /// As whole numbers, rounded towards zero; masks as 0 and 1. PyTorch: `x.int()`.
    #[inline]
    pub fn to_index(self) -> Tensor<S, Index> {
        Tensor::from_raw(cast(self.raw(), DType::I32))
    }

    /// Where the value is not zero. PyTorch: `x.bool()`.
    #[inline]
    pub fn to_mask(self) -> Tensor<S, Mask> {
        Tensor::from_raw(cast(self.raw(), DType::Bool))
    }
}

impl<S: Shape, B: Base> Tensor<S, B> {
    /// The same number everywhere. PyTorch: `torch.full`.
    #[inline]
    pub fn full(value: impl Operand<S, B>) -> Tensor<S, B> {
        Tensor::from_raw(crate::ops::movement::broadcast(value.operand(), S::dims()))
    }

    /// Zeros, or false. PyTorch: `torch.zeros`.
    #[inline]
    pub fn zeros() -> Tensor<S, B> {
        Tensor::from_raw(leaf::fill(0.0, Self::type_of()))
    }

    /// Ones, or true. PyTorch: `torch.ones`.
    #[inline]
    pub fn ones() -> Tensor<S, B> {
        Tensor::from_raw(leaf::fill(1.0, Self::type_of()))
    }
}
