//! Derived axes of sliding windows beyond [`Conv`](super::axis::Conv): the output length of a
//! transposed convolution, and the bins and frames of a short-time Fourier transform.

use super::axis::{Axis, Const, Floor, Print, Sum};
use super::message::Message;
use crate::graph::extent::Extent;
use std::marker::PhantomData;

/// Output length of a transposed convolution over `A`, as derived axis:
/// `(A - 1) * S - 2 * P + D * (K - 1) + 1 + Q`, where `Q` is the output padding (Dumoulin and
/// Visin 2016, relationship 14; PyTorch: `ConvTranspose1d`).
///
/// It undoes [`Conv`](super::axis::Conv): a convolution over it with the same settings gives
/// back `A`, which the compiler proves where `Q < S`.
pub type ConvTranspose<A, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1, const Q: u64 = 0> =
    ConvTransposeOut<A, Const<K>, Const<S>, Const<P>, Const<D>, Const<Q>>;

/// See [`ConvTranspose`]: the same with kernel, stride, padding, dilation and output padding as
/// axes.
#[allow(clippy::type_complexity)]
pub struct ConvTransposeOut<A, K, S, P, D, Q>(PhantomData<fn() -> (A, K, S, P, D, Q)>);

impl<A: Axis, K: Axis, S: Axis, P: Axis, D: Axis, Q: Axis> ConvTransposeOut<A, K, S, P, D, Q> {
    const BUF: &'static Message = &Self::describe(A::NAME);
    const PATHBUF: &'static Message = &Self::describe(A::PATH);

    const fn describe(input: &str) -> Message {
        let m = Message::new().text("ConvTranspose<").text(input).text(", ").text(K::NAME).text(", ").text(S::NAME);
        m.text(", ").text(P::NAME).text(", ").text(D::NAME).text(", ").text(Q::NAME).text(">")
    }
}

#[diagnostic::do_not_recommend]
impl<A: Axis, K: Axis, S: Axis, P: Axis, D: Axis, Q: Axis> Axis for ConvTransposeOut<A, K, S, P, D, Q> {
    const AXIS: Self = Self(PhantomData);
    const NAME: &'static str = Self::BUF.as_str();
    const PATH: &'static str = Self::PATHBUF.as_str();
    const PRINT: Print = {
        let mut out = [0; 8];
        let mut i = 0;
        while i < 8 {
            let steps = A::PRINT[i].wrapping_sub(1).wrapping_mul(S::PRINT[i]);
            let span = D::PRINT[i] * (K::PRINT[i] - 1) + 1;
            out[i] = steps.wrapping_add(span + Q::PRINT[i]).wrapping_sub(2 * P::PRINT[i]);
            i += 1;
        }
        out
    };
    const SIZE: Option<u64> = match (A::SIZE, K::SIZE, S::SIZE, P::SIZE, D::SIZE, Q::SIZE) {
        (Some(a), Some(k), Some(s), Some(p), Some(d), Some(q)) => {
            assert!(a >= 1 && k >= 1, "a transposed convolution's input and kernel have at least one position");
            let whole = (a - 1) * s + d * (k - 1) + 1 + q;
            assert!(whole >= 2 * p, "a transposed convolution's padding is longer than its output");
            Some(whole - 2 * p)
        }
        _ => None,
    };
    fn extent() -> Extent {
        let one = || Extent::constant(1);
        let steps = Extent::mul(Extent::sub(A::extent(), one()), S::extent());
        let span = Extent::add(Extent::mul(D::extent(), Extent::sub(K::extent(), one())), one());
        let whole = Extent::add(Extent::add(steps, span), Q::extent());
        Extent::sub(whole, Extent::mul(Extent::constant(2), P::extent()))
    }
}

/// Frequencies of a one-sided Fourier transform of length `N`: `floor(N / 2) + 1`.
pub type Bins<N> = Sum<Floor<N, Const<2>>, Const<1>>;

/// Frames of a centred short-time Fourier transform of `Samples` with the given hop:
/// `floor(Samples / HOP) + 1`.
pub type Centred<Samples, const HOP: u64> = Sum<Floor<Samples, Const<HOP>>, Const<1>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::axis::Conv;

    /// A run-time axis, as `axes!` writes it.
    struct Time;
    impl Axis for Time {
        const AXIS: Self = Time;
        const NAME: &'static str = "Time";
        const PATH: &'static str = "window::Time";
        const PRINT: Print = crate::language::axis::symbol_print("window::Time");
        const SIZE: Option<u64> = None;
        fn extent() -> Extent {
            Extent::symbol(Self::NAME, Self::PATH, Self::PRINT)
        }
    }

    #[test]
    fn a_transposed_convolution_has_the_length_of_pytorch() {
        // torch.nn.ConvTranspose1d(1, 1, 4, stride=3, padding=1, output_padding=2, dilation=2)
        // maps 5 to (5 - 1) * 3 - 2 + 2 * 3 + 2 + 1 = 19.
        type Long = ConvTranspose<Const<5>, 4, 3, 1, 2, 2>;
        assert_eq!(Long::SIZE, Some(19));
        assert_eq!(Long::PRINT, [19; 8]);
        assert_eq!(Long::extent().as_constant(), Some(19));
        assert_eq!(Long::NAME, "ConvTranspose<5, 4, 3, 1, 2, 2>");
    }

    #[test]
    fn a_convolution_undoes_it_for_every_length() {
        assert_eq!(<Conv<ConvTranspose<Time, 4, 3, 1, 2, 2>, 4, 3, 1, 2>>::PRINT, Time::PRINT);
        assert_ne!(<Conv<ConvTranspose<Time, 4, 3, 1, 2, 3>, 4, 3, 1, 2>>::PRINT, Time::PRINT);
        assert_eq!(ConvTranspose::<Time, 4, 2, 1>::extent().print(), &ConvTranspose::<Time, 4, 2, 1>::PRINT);
    }

    #[test]
    fn centred_frames_are_those_of_padded_windows() {
        assert_eq!(<Centred<Time, 160>>::PRINT, <Conv<Time, 400, 160, 200>>::PRINT);
        assert_eq!(<Bins<Const<400>>>::SIZE, Some(201));
    }
}
