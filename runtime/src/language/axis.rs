//! Axes: types that name a dimension, know its size or its symbol, and carry a fingerprint.
//!
//! Users declare axes with `axes!`; this file holds the trait and the derived forms that
//! expressions such as `2 * Hidden` or `floor(Samples / 160) + 1` expand to.
//!
//! **Fingerprints.** [`Axis::PRINT`] is the axis's value under eight fixed assignments of all
//! run-time axes. A static axis repeats its size, a run-time axis draws eight numbers from a
//! hash of its path, derived axes compute. Two extents are equal for all sizes iff their prints
//! are equal, up to a vanishing probability (polynomial identity testing, Schwartz 1980), so an
//! ordinary constant assertion proves `Batch * Time * 512 = Batch * Time * 8 * 64`.

use super::message::Message;
use crate::graph::extent::{AxisTag, Dim, Extent};
use std::marker::PhantomData;

/// The values of an extent under eight fixed assignments of the run-time axes.
pub type Print = [u64; 8];

/// A named dimension, as a type.
///
/// Declare axes with [`axes!`](crate::axes); the trait is implemented by hand nowhere else.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an axis",
    label = "expected an axis type",
    note = "declare it: `axes! {{ pub {Self}; }}` (bound at run time) or `axes! {{ pub {Self} = 128; }}`"
)]
pub trait Axis: Sized + 'static {
    /// The axis as a value, for `x.sum(Time)` in code that is generic over the axis.
    const AXIS: Self;
    /// The name that errors, drawings and plans show.
    const NAME: &'static str;
    /// The full path: what tells two axes of one name apart.
    const PATH: &'static str;
    /// The value under eight fixed assignments; see the module's description.
    const PRINT: Print;
    /// The size, where the compiler knows it.
    const SIZE: Option<u64>;
    /// The symbolic size.
    fn extent() -> Extent;
    /// The axis as a value.
    const INFO: AxisInfo = AxisInfo {
        tag: AxisTag { name: Self::NAME, path: Self::PATH },
        size: match Self::SIZE {
            Some(n) => AxisSize::Known(n),
            None => AxisSize::Symbolic(Self::extent),
        },
    };
    /// The dimension that this axis labels in the graph.
    fn dim() -> Dim {
        Self::INFO.dim()
    }
}

/// An axis as a value: what untyped code is given, so that distinct shapes differ in constants
/// and not in code.
#[derive(Clone, Copy, Debug)]
pub struct AxisInfo {
    /// Its name and path.
    pub tag: AxisTag,
    /// Its size.
    pub size: AxisSize,
}

/// The size of an axis as a value.
#[derive(Clone, Copy, Debug)]
pub enum AxisSize {
    /// The compiler knows it. No code is generated for such an axis.
    Known(u64),
    /// It depends on run-time axes.
    Symbolic(fn() -> Extent),
}

impl AxisInfo {
    /// The dimension that the axis labels in the graph.
    pub fn dim(&self) -> Dim {
        let extent = match self.size {
            AxisSize::Known(n) => Extent::constant(n),
            AxisSize::Symbolic(f) => f(),
        };
        Dim { axis: self.tag, extent }
    }
}

/// The anonymous static axis of size `N`; a literal in `Tensor![Batch, 3]` means it.
pub struct Const<const N: u64>;

impl<const N: u64> Const<N> {
    const BUF: &'static Message = &Message::new().number(N);
}

#[diagnostic::do_not_recommend]
impl<const N: u64> Axis for Const<N> {
    const AXIS: Self = Const;
    const NAME: &'static str = Self::BUF.as_str();
    const PATH: &'static str = Self::NAME;
    const PRINT: Print = [N; 8];
    const SIZE: Option<u64> = Some(N);
    fn extent() -> Extent {
        Extent::constant(N)
    }
}

macro_rules! derived {
    ($(#[$doc:meta])* $name:ident, $open:literal, $infix:literal, $close:literal, $op:expr, $ctor:ident, $static_:expr) => {
        $(#[$doc])*
        pub struct $name<A, B>(PhantomData<fn() -> (A, B)>);
        impl<A: Axis, B: Axis> $name<A, B> {
            const BUF: &'static Message =
                &Message::new().text($open).text(A::NAME).text($infix).text(B::NAME).text($close);
            const PATHBUF: &'static Message =
                &Message::new().text($open).text(A::PATH).text($infix).text(B::PATH).text($close);
        }
        #[diagnostic::do_not_recommend]
        impl<A: Axis, B: Axis> Axis for $name<A, B> {
            const AXIS: Self = $name(PhantomData);
            const NAME: &'static str = Self::BUF.as_str();
            const PATH: &'static str = Self::PATHBUF.as_str();
            const PRINT: Print = {
                let mut out = [0; 8];
                let mut i = 0;
                while i < 8 {
                    out[i] = $op(A::PRINT[i], B::PRINT[i]);
                    i += 1;
                }
                out
            };
            const SIZE: Option<u64> = match (A::SIZE, B::SIZE) {
                (Some(a), Some(b)) => Some($static_(a, b)),
                _ => None,
            };
            fn extent() -> Extent {
                Extent::$ctor(A::extent(), B::extent())
            }
        }
    };
}

const fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}
const fn sub(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b)
}
const fn mul(a: u64, b: u64) -> u64 {
    a.wrapping_mul(b)
}
const fn floor_div(a: u64, b: u64) -> u64 {
    assert!(b != 0, "an axis is divided by zero");
    a / b
}
const fn ceil_div(a: u64, b: u64) -> u64 {
    assert!(b != 0, "an axis is divided by zero");
    a.div_ceil(b)
}
const fn exact_div(a: u64, b: u64) -> u64 {
    assert!(b != 0, "an axis is divided by zero");
    assert!(
        a.is_multiple_of(b),
        "an exact division `/` of axes leaves a remainder; use `floor(a / n)` or `ceil(a / n)`"
    );
    a / b
}
const fn static_sub(a: u64, b: u64) -> u64 {
    assert!(a >= b, "a difference of axes is negative");
    a - b
}

derived!(
    /// The axis of size `A * B`.
    Prod, "(", " * ", ")", mul, mul, mul);
derived!(
    /// The axis of size `A + B`.
    Sum, "(", " + ", ")", add, add, add);
derived!(
    /// The axis of size `A - B`. Negative sizes are refused when sizes are bound.
    Diff, "(", " - ", ")", sub, sub, static_sub);
derived!(
    /// [`Diff`] in `axes!`, which proves in words of its own that it is not negative.
    #[doc(hidden)]
    Rest, "(", " - ", ")", sub, sub, sub);
derived!(
    /// The axis of size `A / B` for static axes: a remainder is a compile error.
    Quot, "(", " / ", ")", exact_div, floor_div, exact_div);
derived!(
    /// The axis of size `floor(A / B)`.
    Floor, "floor(", " / ", ")", floor_div, floor_div, floor_div);
derived!(
    /// The axis of size `ceil(A / B)`.
    Ceil, "ceil(", " / ", ")", ceil_div, ceil_div, ceil_div);

/// Output length of a convolution or pooling over `A`, as derived axis:
/// `floor((A + 2 * P - D * (K - 1) - 1) / S) + 1` (Dumoulin and Visin 2016, relationship 15).
pub type Conv<A, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1> =
    ConvOut<A, Const<K>, Const<S>, Const<P>, Const<D>>;

/// See [`Conv`]: the same with kernel, stride, padding and dilation as axes.
pub struct ConvOut<A, K, S, P, D>(PhantomData<fn() -> (A, K, S, P, D)>);

impl<A: Axis, K: Axis, S: Axis, P: Axis, D: Axis> ConvOut<A, K, S, P, D> {
    const BUF: &'static Message = &Message::new()
        .text("Conv<")
        .text(A::NAME)
        .text(", ")
        .text(K::NAME)
        .text(", ")
        .text(S::NAME)
        .text(", ")
        .text(P::NAME)
        .text(", ")
        .text(D::NAME)
        .text(">");
    const PATHBUF: &'static Message = &Message::new()
        .text("Conv<")
        .text(A::PATH)
        .text(", ")
        .text(K::NAME)
        .text(", ")
        .text(S::NAME)
        .text(", ")
        .text(P::NAME)
        .text(", ")
        .text(D::NAME)
        .text(">");
}

#[diagnostic::do_not_recommend]
impl<A: Axis, K: Axis, S: Axis, P: Axis, D: Axis> Axis for ConvOut<A, K, S, P, D> {
    const AXIS: Self = ConvOut(PhantomData);
    const NAME: &'static str = Self::BUF.as_str();
    const PATH: &'static str = Self::PATHBUF.as_str();
    const PRINT: Print = {
        let mut out = [0; 8];
        let mut i = 0;
        while i < 8 {
            let span = D::PRINT[i] * (K::PRINT[i] - 1) + 1;
            out[i] = floor_div((A::PRINT[i] + 2 * P::PRINT[i]).wrapping_sub(span), S::PRINT[i]) + 1;
            i += 1;
        }
        out
    };
    const SIZE: Option<u64> = match (A::SIZE, K::SIZE, S::SIZE, P::SIZE, D::SIZE) {
        (Some(a), Some(k), Some(s), Some(p), Some(d)) => {
            let span = d * (k - 1) + 1;
            assert!(a + 2 * p >= span, "a convolution's kernel is longer than its padded input");
            Some((a + 2 * p - span) / s + 1)
        }
        _ => None,
    };
    fn extent() -> Extent {
        let one = || Extent::constant(1);
        let span = Extent::add(Extent::mul(D::extent(), Extent::sub(K::extent(), one())), one());
        let padded = Extent::add(A::extent(), Extent::mul(Extent::constant(2), P::extent()));
        Extent::add(Extent::floor_div(Extent::sub(padded, span), S::extent()), one())
    }
}

/// Eight values of a run-time axis, drawn from its path. All lie between 2^10 and 2^16, so that
/// products of four run-time axes do not wrap, and they never share one residue modulo 2 to 8,
/// so that `2 * floor(Time / 2) = Time` is refused for every `Time`.
pub const fn symbol_print(path: &str) -> Print {
    let bytes = path.as_bytes();
    let mut salt = 0u64;
    loop {
        let mut out = [0; 8];
        let mut slot = 0;
        while slot < 8 {
            let mut h: u64 = 0xcbf2_9ce4_8422_2325 ^ ((slot as u64 + 8 * salt).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut i = 0;
            while i < bytes.len() {
                h = (h ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
                i += 1;
            }
            h ^= h >> 32;
            h = h.wrapping_mul(0xD6E8_FEB8_6659_FD93);
            h ^= h >> 32;
            out[slot] = 1024 + h % 64_512;
            slot += 1;
        }
        let mut modulus = 2;
        let mut good = true;
        while modulus <= 8 {
            let mut i = 1;
            let mut varies = false;
            while i < 8 {
                varies |= out[i] % modulus != out[0] % modulus;
                i += 1;
            }
            good &= varies;
            modulus += 1;
        }
        if good {
            return out;
        }
        salt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_axes_name_and_compute() {
        type Five = Sum<Const<2>, Const<3>>;
        assert_eq!(Five::NAME, "(2 + 3)");
        assert_eq!(Five::SIZE, Some(5));
        assert_eq!(<Conv<Const<10>, 3, 2, 1>>::SIZE, Some(5));
        assert_eq!(<Conv<Const<10>, 3, 2, 1>>::PRINT, [5; 8]);
        assert_eq!(<Floor<Five, Const<2>>>::SIZE, Some(2));
        assert_eq!(<Ceil<Five, Const<2>>>::SIZE, Some(3));
    }

    #[test]
    fn symbols_differ_and_vary() {
        let print = symbol_print("a::Batch");
        assert_ne!(print, symbol_print("a::Time"));
        for modulus in 2..=8 {
            assert!(print.iter().any(|v| v % modulus != print[0] % modulus));
        }
    }
}
