//! Convolutions of typed tensors. The output length is a derived axis of the input's, so
//! `relabel` can give it a declared name with proof.

use super::{Geometry, conv_input_grad, conv_to};
use crate::graph::{Dim, Extent};
use crate::language::axis::{Axis, Const, Conv, ConvOut, Quot};
use crate::language::element::{Element, Float, Real};
use crate::language::window::{ConvTranspose, ConvTransposeOut};
use crate::tensor::Tensor;

/// How a window slides, as a value whose numbers the compiler knows: stride `S`, padding `P` on
/// both sides, dilation `D`. `Sliding::<2, 1>` is stride 2, padding 1, dilation 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sliding<const S: u64 = 1, const P: u64 = 0, const D: u64 = 1>;

impl<const S: u64, const P: u64, const D: u64> Sliding<S, P, D> {
    pub(crate) fn geometry(self, spatial: usize) -> Geometry {
        Geometry::square(spatial, S, P, D)
    }
}

/// A bias over output channels, or none: `()`.
pub trait MaybeBias<O> {
    /// The untyped handle, where there is a bias.
    fn handle(self) -> Option<crate::graph::trace::Handle>;
}
impl<O> MaybeBias<O> for () {
    fn handle(self) -> Option<crate::graph::trace::Handle> {
        None
    }
}
impl<O: Axis, E: Element<Base = Real>> MaybeBias<O> for Tensor<(O,), E> {
    fn handle(self) -> Option<crate::graph::trace::Handle> {
        Some(self.raw())
    }
}
impl<O: Axis> MaybeBias<O> for Option<Tensor<(O,)>> {
    fn handle(self) -> Option<crate::graph::trace::Handle> {
        self.map(Tensor::raw)
    }
}

/// Padding that keeps the length at stride 1; an odd sum puts the larger half after, as
/// PyTorch's `padding="same"`.
fn same_padding(kernel: u64, dilation: u64) -> [u64; 2] {
    let total = dilation * kernel.saturating_sub(1);
    [total / 2, total - total / 2]
}

impl<B: Axis, C: Axis, L: Axis, E: Float> Tensor<(B, C, L), E> {
    /// A convolution over the last axis: `[Batch, C, L] -> [Batch, O, Conv<L, K, S, P, D>]`.
    /// `bias` is a tensor over `O` or `()`.
    ///
    /// PyTorch: `conv1d(x, weight, bias, S, P, D)`.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::prelude::*;
    /// axes! {
    ///     pub Batch;
    ///     pub Time;
    ///     pub Mels = 80;
    ///     pub Hidden = 96;
    ///     pub Half = ceil(Time / 2);
    /// }
    ///
    /// fn subsample(x: Tensor![Batch, Mels, Time], w: Tensor![Hidden, Mels, 3]) -> Tensor![Batch, Hidden, Half] {
    ///     // The compiler proves floor((Time + 2 - 2 - 1) / 2) + 1 = ceil(Time / 2).
    ///     x.conv1d(w, (), Sliding::<2, 1>).relabel()
    /// }
    /// ```
    #[inline]
    pub fn conv1d<O: Axis, const K: u64, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(O, C, Const<K>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, O, Conv<L, K, S, P, D>)> {
        let dims = vec![B::dim(), O::dim(), Conv::<L, K, S, P, D>::dim()];
        Tensor::from_raw(conv_to(self.raw(), weight.raw(), bias.handle(), &sliding.geometry(1), dims))
    }

    /// [`conv1d`](Self::conv1d) in `G` groups of channels: filters see `C / G` channels each.
    #[inline]
    pub fn conv1d_grouped<O: Axis, const G: u64, const K: u64, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(O, Quot<C, Const<G>>, Const<K>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, O, Conv<L, K, S, P, D>)> {
        let dims = vec![B::dim(), O::dim(), Conv::<L, K, S, P, D>::dim()];
        let geometry = sliding.geometry(1).grouped(Extent::constant(G));
        Tensor::from_raw(conv_to(self.raw(), weight.raw(), bias.handle(), &geometry, dims))
    }

    /// [`conv1d`](Self::conv1d) with one filter per channel (Howard et al. 2017).
    #[inline]
    pub fn conv1d_depthwise<const K: u64, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(C, Const<1>, Const<K>)>,
        bias: impl MaybeBias<C>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, C, Conv<L, K, S, P, D>)> {
        let dims = vec![B::dim(), C::dim(), Conv::<L, K, S, P, D>::dim()];
        let geometry = sliding.geometry(1).grouped(C::extent());
        Tensor::from_raw(conv_to(self.raw(), weight.raw(), bias.handle(), &geometry, dims))
    }

    /// A convolution at stride 1 that keeps its axis: `D * (K - 1)` zeros, half on each side
    /// (one more after, if odd). PyTorch: `conv1d(.., padding="same")`.
    #[inline]
    pub fn conv1d_same<O: Axis, const K: u64, const D: u64>(
        self,
        weight: Tensor<(O, C, Const<K>)>,
        bias: impl MaybeBias<O>,
        dilation: Const<D>,
    ) -> Tensor<(B, O, L)> {
        keep(
            self.raw(),
            weight.raw(),
            bias.handle(),
            same_padding(K, D),
            dilation,
            1,
            vec![B::dim(), O::dim(), L::dim()],
        )
    }

    /// A convolution at stride 1 that keeps its axis and sees no later position: all
    /// `D * (K - 1)` zeros come before (van den Oord et al. 2016, WaveNet).
    #[inline]
    pub fn conv1d_causal<O: Axis, const K: u64, const D: u64>(
        self,
        weight: Tensor<(O, C, Const<K>)>,
        bias: impl MaybeBias<O>,
        dilation: Const<D>,
    ) -> Tensor<(B, O, L)> {
        let padding = [D * K.saturating_sub(1), 0];
        keep(self.raw(), weight.raw(), bias.handle(), padding, dilation, 1, vec![B::dim(), O::dim(), L::dim()])
    }

    /// A transposed convolution: `[Batch, C, L] -> [Batch, O, ConvTranspose<L, K, S, P, D, Q>]`
    /// with output padding `Q < S`.
    ///
    /// PyTorch: `conv_transpose1d(x, weight, bias, S, P, Q, 1, D)`; the weight is
    /// `[in, out, kernel]`.
    #[inline]
    pub fn conv_transpose1d<O: Axis, const K: u64, const S: u64, const P: u64, const D: u64, const Q: u64>(
        self,
        weight: Tensor<(C, O, Const<K>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
        _output_padding: Const<Q>,
    ) -> Tensor<(B, O, ConvTranspose<L, K, S, P, D, Q>)> {
        const { output_padding(S, Q) }
        let dims = vec![B::dim(), O::dim(), ConvTranspose::<L, K, S, P, D, Q>::dim()];
        Tensor::from_raw(conv_input_grad(self.raw(), weight.raw(), bias.handle(), &sliding.geometry(1), dims))
    }
}

/// More output padding than stride would leave positions that no input reaches.
const fn output_padding(stride: u64, padding: u64) {
    assert!(padding < stride, "a transposed convolution's output padding must be smaller than its stride");
}

fn keep<S, const D: u64>(
    x: crate::graph::trace::Handle,
    weight: crate::graph::trace::Handle,
    bias: Option<crate::graph::trace::Handle>,
    padding: [u64; 2],
    _dilation: Const<D>,
    groups: u64,
    dims: Vec<Dim>,
) -> Tensor<S> {
    let mut geometry = Geometry::square(dims.len() - 2, 1, 0, D).grouped(Extent::constant(groups));
    geometry.padding.fill(padding);
    Tensor::from_raw(conv_to(x, weight, bias, &geometry, dims))
}

impl<B: Axis, C: Axis, H: Axis, W: Axis, E: Float> Tensor<(B, C, H, W), E> {
    /// A convolution over the last two axes, with the same settings for both:
    /// `[Batch, C, H, W] -> [Batch, O, Conv<H, KH, S, P, D>, Conv<W, KW, S, P, D>]`. `bias` is a
    /// tensor over `O` or `()`.
    ///
    /// PyTorch: `conv2d(x, weight, bias, S, P, D)`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn conv2d<O: Axis, const KH: u64, const KW: u64, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(O, C, Const<KH>, Const<KW>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, O, Conv<H, KH, S, P, D>, Conv<W, KW, S, P, D>)> {
        self.conv2d_any::<O, C, Const<KH>, Const<KW>, S, P, D>(weight, bias, sliding, Extent::constant(1))
    }

    /// [`conv2d`](Self::conv2d) in `G` groups of channels: filters see `C / G` channels each.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn conv2d_grouped<
        O: Axis,
        const G: u64,
        const KH: u64,
        const KW: u64,
        const S: u64,
        const P: u64,
        const D: u64,
    >(
        self,
        weight: Tensor<(O, Quot<C, Const<G>>, Const<KH>, Const<KW>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, O, Conv<H, KH, S, P, D>, Conv<W, KW, S, P, D>)> {
        self.conv2d_any::<O, _, Const<KH>, Const<KW>, S, P, D>(weight, bias, sliding, Extent::constant(G))
    }

    /// [`conv2d`](Self::conv2d) with one filter per channel.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn conv2d_depthwise<const KH: u64, const KW: u64, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(C, Const<1>, Const<KH>, Const<KW>)>,
        bias: impl MaybeBias<C>,
        sliding: Sliding<S, P, D>,
    ) -> Tensor<(B, C, Conv<H, KH, S, P, D>, Conv<W, KW, S, P, D>)> {
        self.conv2d_any::<C, _, Const<KH>, Const<KW>, S, P, D>(weight, bias, sliding, C::extent())
    }

    #[inline]
    #[allow(clippy::type_complexity)]
    fn conv2d_any<O: Axis, G: Axis, KH: Axis, KW: Axis, const S: u64, const P: u64, const D: u64>(
        self,
        weight: Tensor<(O, G, KH, KW)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
        groups: Extent,
    ) -> Tensor<(B, O, ConvOut<H, KH, Const<S>, Const<P>, Const<D>>, ConvOut<W, KW, Const<S>, Const<P>, Const<D>>)>
    {
        let height = ConvOut::<H, KH, Const<S>, Const<P>, Const<D>>::dim();
        let width = ConvOut::<W, KW, Const<S>, Const<P>, Const<D>>::dim();
        let geometry = sliding.geometry(2).grouped(groups);
        let dims = vec![B::dim(), O::dim(), height, width];
        Tensor::from_raw(conv_to(self.raw(), weight.raw(), bias.handle(), &geometry, dims))
    }

    /// A convolution with an odd square kernel at stride 1 that keeps its axes.
    /// PyTorch: `conv2d(.., padding="same")`.
    #[inline]
    pub fn conv2d_same<O: Axis, const K: u64, const D: u64>(
        self,
        weight: Tensor<(O, C, Const<K>, Const<K>)>,
        bias: impl MaybeBias<O>,
        dilation: Const<D>,
    ) -> Tensor<(B, O, H, W)> {
        let dims = vec![B::dim(), O::dim(), H::dim(), W::dim()];
        keep(self.raw(), weight.raw(), bias.handle(), same_padding(K, D), dilation, 1, dims)
    }

    /// A transposed convolution over the last two axes, with the same settings for both.
    ///
    /// PyTorch: `conv_transpose2d(x, weight, bias, S, P, Q, 1, D)`; the weight is
    /// `[in, out, kernel, kernel]`.
    #[inline]
    #[allow(clippy::type_complexity)]
    pub fn conv_transpose2d<
        O: Axis,
        const KH: u64,
        const KW: u64,
        const S: u64,
        const P: u64,
        const D: u64,
        const Q: u64,
    >(
        self,
        weight: Tensor<(C, O, Const<KH>, Const<KW>)>,
        bias: impl MaybeBias<O>,
        sliding: Sliding<S, P, D>,
        _output_padding: Const<Q>,
    ) -> Tensor<(B, O, ConvTranspose<H, KH, S, P, D, Q>, ConvTranspose<W, KW, S, P, D, Q>)> {
        const { output_padding(S, Q) }
        let height = ConvTransposeOut::<H, Const<KH>, Const<S>, Const<P>, Const<D>, Const<Q>>::dim();
        let width = ConvTransposeOut::<W, Const<KW>, Const<S>, Const<P>, Const<D>, Const<Q>>::dim();
        let dims = vec![B::dim(), O::dim(), height, width];
        Tensor::from_raw(conv_input_grad(self.raw(), weight.raw(), bias.handle(), &sliding.geometry(2), dims))
    }
}
