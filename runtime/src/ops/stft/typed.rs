//! Transforms of typed signals `[Batch, Samples]`.

use super::{Edge, Framing, WindowShape, istft, stft_to, window};
use crate::graph::DType;
use crate::language::axis::{Axis, Const, ConvOut};
use crate::language::element::Float;
use crate::language::proof;
use crate::language::window::{Bins, Centred};
use crate::ops::elementwise::{self as ew, CompareKind, UnaryKind};
use crate::ops::{leaf, reduce};
use crate::tensor::Tensor;

impl WindowShape {
    /// A window of the length of axis `N`, for [`Tensor::stft`].
    #[inline]
    pub fn over<N: Axis>(self) -> Tensor<(N,)> {
        Tensor::from_raw(window(self, N::extent(), N::dim(), false))
    }

    /// A window of the length of `W` in the middle of `N` values, zeros around it. PyTorch:
    /// `stft(n_fft=N, win_length=W)`.
    #[inline]
    pub fn within<W: Axis, N: Axis>(self) -> Tensor<(N,)> {
        Tensor::from_raw(window(self, W::extent(), N::dim(), false))
    }
}

/// Half of a window of odd length is not a whole number of samples.
const fn even<N: Axis>() {
    let mut i = 0;
    while i < 8 {
        assert!(
            N::PRINT[i].is_multiple_of(2),
            "centred frames need a window of even length: use `stft_uncentred`, or pad the window"
        );
        i += 1;
    }
}

impl<B: Axis, L: Axis, E: Float> Tensor<(B, L), E> {
    /// The short-time Fourier transform with frames centred at the multiples of `HOP`:
    /// `[Batch, Samples] -> [Batch, N / 2 + 1, floor(Samples / HOP) + 1, 2]`, real and imaginary
    /// parts last. `edge` says what lies beyond the ends.
    ///
    /// PyTorch: `view_as_real(stft(x, N, HOP, window=window, center=True, return_complex=True))`.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::prelude::*;
    /// use mobilis::ops::stft::{Edge, WindowShape};
    /// axes! {
    ///     pub Batch;
    ///     pub Samples;
    ///     pub Fft = 400;
    ///     pub Frequencies = 201;
    ///     pub Frames = floor(Samples / 160) + 1;
    /// }
    ///
    /// fn spectrum(x: Tensor![Batch, Samples]) -> Tensor![Batch, Frequencies, Frames] {
    ///     let window = WindowShape::Hann.over::<Fft>();
    ///     x.stft(window, Const::<160>, Edge::Reflect).power_spectrum().relabel()
    /// }
    /// ```
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn stft<N: Axis, const HOP: u64>(
        self,
        window: Tensor<(N,)>,
        _hop: Const<HOP>,
        edge: Edge,
    ) -> Tensor<(B, Bins<N>, Centred<L, HOP>, Const<2>)> {
        const { even::<N>() }
        let dims = vec![B::dim(), Bins::<N>::dim(), Centred::<L, HOP>::dim(), Const::<2>::dim()];
        Tensor::from_raw(stft_to(self.raw(), window.raw(), centred::<N>(HOP, edge), dims))
    }

    /// The same without padding: the first frame begins at the first sample, and frames that
    /// would end beyond the last are left out. PyTorch: `stft(.., center=False)`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn stft_uncentred<N: Axis, const HOP: u64>(
        self,
        window: Tensor<(N,)>,
        _hop: Const<HOP>,
    ) -> Tensor<(B, Bins<N>, ConvOut<L, N, Const<HOP>, Const<0>, Const<1>>, Const<2>)> {
        let frames = ConvOut::<L, N, Const<HOP>, Const<0>, Const<1>>::dim();
        let dims = vec![B::dim(), Bins::<N>::dim(), frames, Const::<2>::dim()];
        let framing = Framing { hop: HOP, pad: 0, edge: Edge::Zeros };
        Tensor::from_raw(stft_to(self.raw(), window.raw(), framing, dims))
    }
}

/// Padding by half a window, which is static.
fn centred<N: Axis>(hop: u64, edge: Edge) -> Framing {
    match N::SIZE {
        Some(n) => Framing { hop, pad: n / 2, edge },
        None => {
            crate::graph::trace::fail(format!("stft: the window's axis `{}` must be static", N::NAME));
            Framing { hop, pad: 0, edge }
        }
    }
}

impl<B: Axis, F: Axis, T: Axis, E: Float> Tensor<(B, F, T, Const<2>), E> {
    /// The signal `[Batch, L]` of a spectrum with centred frames: the inverse of
    /// [`Tensor::stft`], exact where the windows overlap. The compiler proves that a signal of
    /// length `L` has as many bins and frames.
    ///
    /// PyTorch: `istft(.., N, HOP, window=window, center=True, length=L)`.
    #[inline]
    pub fn istft<L: Axis, N: Axis, const HOP: u64>(self, window: Tensor<(N,)>, _hop: Const<HOP>) -> Tensor<(B, L)> {
        const {
            even::<N>();
            proof::equal::<F, Bins<N>>("istft: the bins of the window");
            proof::equal::<T, Centred<L, HOP>>("istft: the frames of the signal");
        }
        Tensor::from_raw(istft(self.raw(), window.raw(), centred::<N>(HOP, Edge::Zeros), L::dim()))
    }

    /// Squared magnitudes: real part squared plus imaginary part squared.
    #[inline]
    pub fn power_spectrum(self) -> Tensor<(B, F, T)> {
        let square = ew::mul(self.raw(), self.raw());
        Tensor::from_raw(reduce::reduce(square, reduce::Kind::Sum, &[3]))
    }

    /// Magnitudes; where one is 0 its gradient is 0. PyTorch: `stft(..).abs()`.
    #[inline]
    pub fn magnitude_spectrum(self) -> Tensor<(B, F, T)> {
        Tensor::from_raw(magnitude(self.power_spectrum().raw()))
    }
}

/// The square root whose gradient at 0 is 0 rather than infinite.
fn magnitude(power: crate::graph::trace::Handle) -> crate::graph::trace::Handle {
    debug_assert_eq!(crate::graph::trace::type_of(power).dtype, DType::F32);
    let positive = ew::compare(CompareKind::Gt, power, leaf::scalar(0.0));
    let root = ew::unary(UnaryKind::Sqrt, ew::select(positive, power, leaf::scalar(1.0)));
    ew::select(positive, root, leaf::scalar(0.0))
}
