//! Pooling of typed tensors `[Batch, C, L]` and `[Batch, C, H, W]`.

use super::{Window, Windows, average_pool_to, max_pool_to};
use crate::language::axis::{Axis, Const, Conv};
use crate::language::element::Float;
use crate::ops::conv::Sliding;
use crate::ops::reduce;
use crate::tensor::Tensor;

fn window<const K: u64, const S: u64, const P: u64, const D: u64>(_: Const<K>, _: Sliding<S, P, D>) -> Window {
    Window { kernel: K, stride: S, padding: P, dilation: D }
}

/// Larger padding would make windows that hold no value.
const fn padding(kernel: u64, padding: u64) {
    assert!(2 * padding <= kernel, "the padding of a pooling is at most half of its kernel");
}

impl<B: Axis, C: Axis, L: Axis, E: Float> Tensor<(B, C, L), E> {
    /// The largest value of each window: `[Batch, C, L] -> [Batch, C, Conv<L, K, S, P, D>]`.
    /// The gradient goes to the first of equal maxima. `x.max_pool1d(Const::<2>, Sliding::<2>)`
    /// halves the length.
    ///
    /// PyTorch: `max_pool1d(x, K, S, P, D)`.
    #[inline]
    pub fn max_pool1d<const K: u64, const S: u64, const P: u64, const D: u64>(
        self,
        kernel: Const<K>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, C, Conv<L, K, S, P, D>)> {
        const { padding(K, P) }
        let dims = vec![B::dim(), C::dim(), Conv::<L, K, S, P, D>::dim()];
        Tensor::from_raw(max_pool_to(self.raw(), &[window(kernel, sliding)], dims)[0])
    }

    /// The mean of each window, zeros beyond the edges; `count_padding` says whether these count
    /// in what it divides by.
    ///
    /// PyTorch: `avg_pool1d(x, K, S, P, count_include_pad=count_padding)`.
    #[inline]
    pub fn avg_pool1d<const K: u64, const S: u64, const P: u64>(
        self,
        kernel: Const<K>,
        sliding: Sliding<S, P, 1>,
        count_padding: bool,
    ) -> Tensor<(B, C, Conv<L, K, S, P>)> {
        const { padding(K, P) }
        let dims = vec![B::dim(), C::dim(), Conv::<L, K, S, P>::dim()];
        let windows = Windows::Sliding { windows: vec![window(kernel, sliding)], count_padding };
        Tensor::from_raw(average_pool_to(self.raw(), windows, dims))
    }

    /// Means of `O` near equal parts of the last axis, whatever its length.
    /// PyTorch: `adaptive_avg_pool1d(x, O)`.
    #[inline]
    pub fn adaptive_avg_pool1d<O: Axis>(self) -> Tensor<(B, C, O)> {
        Tensor::from_raw(average_pool_to(self.raw(), Windows::Adaptive(1), vec![B::dim(), C::dim(), O::dim()]))
    }

    /// The mean over the last axis: `[Batch, C]`.
    #[inline]
    pub fn global_avg_pool(self) -> Tensor<(B, C)> {
        Tensor::from_raw(reduce::mean(self.raw(), &[2]))
    }

    /// The maximum over the last axis: `[Batch, C]`.
    #[inline]
    pub fn global_max_pool(self) -> Tensor<(B, C)> {
        Tensor::from_raw(reduce::reduce(self.raw(), reduce::Kind::Max, &[2]))
    }
}

impl<B: Axis, C: Axis, H: Axis, W: Axis, E: Float> Tensor<(B, C, H, W), E> {
    /// The largest value of each square window. The gradient goes to the first of equal maxima,
    /// row by row.
    ///
    /// PyTorch: `max_pool2d(x, K, S, P, D)`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn max_pool2d<const K: u64, const S: u64, const P: u64, const D: u64>(
        self,
        kernel: Const<K>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, C, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>)> {
        const { padding(K, P) }
        let dims = vec![B::dim(), C::dim(), Conv::<H, K, S, P, D>::dim(), Conv::<W, K, S, P, D>::dim()];
        Tensor::from_raw(max_pool_to(self.raw(), &[window(kernel, sliding); 2], dims)[0])
    }

    /// The mean of each square window, zeros beyond the edges; `count_padding` says whether
    /// these count in what it divides by.
    ///
    /// PyTorch: `avg_pool2d(x, K, S, P, count_include_pad=count_padding)`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn avg_pool2d<const K: u64, const S: u64, const P: u64>(
        self,
        kernel: Const<K>,
        sliding: Sliding<S, P, 1>,
        count_padding: bool,
    ) -> Tensor<(B, C, Conv<H, K, S, P>, Conv<W, K, S, P>)> {
        const { padding(K, P) }
        let dims = vec![B::dim(), C::dim(), Conv::<H, K, S, P>::dim(), Conv::<W, K, S, P>::dim()];
        let windows = Windows::Sliding { windows: vec![window(kernel, sliding); 2], count_padding };
        Tensor::from_raw(average_pool_to(self.raw(), windows, dims))
    }

    /// Means of `OH * OW` near equal parts of the last two axes, whatever their sizes.
    /// PyTorch: `adaptive_avg_pool2d(x, (OH, OW))`.
    #[inline]
    pub fn adaptive_avg_pool2d<OH: Axis, OW: Axis>(self) -> Tensor<(B, C, OH, OW)> {
        let dims = vec![B::dim(), C::dim(), OH::dim(), OW::dim()];
        Tensor::from_raw(average_pool_to(self.raw(), Windows::Adaptive(2), dims))
    }

    /// The mean over the last two axes: `[Batch, C]`.
    #[inline]
    pub fn global_avg_pool(self) -> Tensor<(B, C)> {
        Tensor::from_raw(reduce::mean(self.raw(), &[2, 3]))
    }

    /// The maximum over the last two axes: `[Batch, C]`.
    #[inline]
    pub fn global_max_pool(self) -> Tensor<(B, C)> {
        Tensor::from_raw(reduce::reduce(self.raw(), reduce::Kind::Max, &[2, 3]))
    }
}
