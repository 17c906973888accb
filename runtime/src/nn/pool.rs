//! Pooling layers over `[Batch, C, L]` and `[Batch, C, H, W]`, and `Flatten`, which joins what
//! convolutions give for linear layers. None has parameters.

use crate::language::axis::{Axis, Const, Conv};
use crate::language::element::{Element, Float};
use crate::language::proof;
use crate::language::shape::Shape;
use crate::module::{Module, NeuralModule, Visitor};
use crate::neural_module;
use crate::ops::conv::Sliding;
use crate::ops::movement;
use crate::tensor::Tensor;
use std::marker::PhantomData;

/// The largest value of each window. PyTorch: `nn.MaxPool1d(K, S, P, D)`; the stride is the
/// kernel unless it is given.
#[neural_module]
pub struct MaxPool1d<const K: u64, const S: u64 = K, const P: u64 = 0, const D: u64 = 1>;

#[neural_module]
impl<const K: u64, const S: u64, const P: u64, const D: u64> MaxPool1d<K, S, P, D> {
    /// `[Batch, C, L]` to `[Batch, C, Conv<L, K, S, P, D>]`.
    pub fn forward<B: Axis, C: Axis, L: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, L), E>,
    ) -> Tensor<(B, C, Conv<L, K, S, P, D>)> {
        x.max_pool1d(Const::<K>, Sliding)
    }
}

/// The largest value of each square window. PyTorch: `nn.MaxPool2d(K, S, P, D)`.
#[neural_module]
pub struct MaxPool2d<const K: u64, const S: u64 = K, const P: u64 = 0, const D: u64 = 1>;

#[neural_module]
impl<const K: u64, const S: u64, const P: u64, const D: u64> MaxPool2d<K, S, P, D> {
    /// `[Batch, C, H, W]` to `[Batch, C, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>]`.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, C: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, C, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>)> {
        x.max_pool2d(Const::<K>, Sliding)
    }
}

/// The mean of each window. PyTorch: `nn.AvgPool1d(K, S, P)`.
#[neural_module]
pub struct AvgPool1d<const K: u64, const S: u64 = K, const P: u64 = 0> {
    /// Whether positions beyond the edges count in what the sum is divided by. PyTorch:
    /// `count_include_pad`.
    #[default(true)]
    pub count_padding: bool,
}

#[neural_module]
impl<const K: u64, const S: u64, const P: u64> AvgPool1d<K, S, P> {
    /// `[Batch, C, L]` to `[Batch, C, Conv<L, K, S, P>]`.
    pub fn forward<B: Axis, C: Axis, L: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, L), E>,
    ) -> Tensor<(B, C, Conv<L, K, S, P>)> {
        x.avg_pool1d(Const::<K>, Sliding, self.count_padding)
    }
}

/// The mean of each square window. PyTorch: `nn.AvgPool2d(K, S, P)`.
#[neural_module]
pub struct AvgPool2d<const K: u64, const S: u64 = K, const P: u64 = 0> {
    /// Whether positions beyond the edges count in what the sum is divided by. PyTorch:
    /// `count_include_pad`.
    #[default(true)]
    pub count_padding: bool,
}

#[neural_module]
impl<const K: u64, const S: u64, const P: u64> AvgPool2d<K, S, P> {
    /// `[Batch, C, H, W]` to `[Batch, C, Conv<H, K, S, P>, Conv<W, K, S, P>]`.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, C: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, C, Conv<H, K, S, P>, Conv<W, K, S, P>)> {
        x.avg_pool2d(Const::<K>, Sliding, self.count_padding)
    }
}

/// Means of `O` near equal parts of the last axis. PyTorch: `nn.AdaptiveAvgPool1d(O)`.
#[neural_module]
pub struct AdaptiveAvgPool1d<O: Axis>(PhantomData<fn() -> O>);

#[neural_module]
impl<O: Axis> AdaptiveAvgPool1d<O> {
    /// `[Batch, C, L]` to `[Batch, C, O]`.
    pub fn forward<B: Axis, C: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, C, O)> {
        x.adaptive_avg_pool1d()
    }
}

/// Means of `OH * OW` near equal parts of the last two axes. PyTorch: `nn.AdaptiveAvgPool2d((OH,
/// OW))`.
#[neural_module]
pub struct AdaptiveAvgPool2d<OH: Axis, OW: Axis>(PhantomData<fn() -> (OH, OW)>);

#[neural_module]
impl<OH: Axis, OW: Axis> AdaptiveAvgPool2d<OH, OW> {
    /// `[Batch, C, H, W]` to `[Batch, C, OH, OW]`.
    pub fn forward<B: Axis, C: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, C, OH, OW)> {
        x.adaptive_avg_pool2d()
    }
}

/// What convolutions give: `[Batch, C, L]` or `[Batch, C, H, W]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a convolution gives",
    label = "expected `[Batch, Channels, Length]` or `[Batch, Channels, Height, Width]`"
)]
pub trait Planes {
    /// The batch.
    type Batch: Axis;
    /// Without the spatial axes.
    type Pooled;
    /// All axes but the batch.
    type Inner: Shape;
    /// The mean over the spatial axes.
    fn mean_of_planes(self) -> Self::Pooled;
    /// The untyped handle.
    fn handle(self) -> crate::graph::trace::Handle;
}

impl<B: Axis, C: Axis, L: Axis, E: Element<Base = crate::Real>> Planes for Tensor<(B, C, L), E> {
    type Batch = B;
    type Pooled = Tensor<(B, C)>;
    type Inner = (C, L);
    fn mean_of_planes(self) -> Self::Pooled {
        self.global_avg_pool()
    }
    fn handle(self) -> crate::graph::trace::Handle {
        self.raw()
    }
}

impl<B: Axis, C: Axis, H: Axis, W: Axis, E: Element<Base = crate::Real>> Planes for Tensor<(B, C, H, W), E> {
    type Batch = B;
    type Pooled = Tensor<(B, C)>;
    type Inner = (C, H, W);
    fn mean_of_planes(self) -> Self::Pooled {
        self.global_avg_pool()
    }
    fn handle(self) -> crate::graph::trace::Handle {
        self.raw()
    }
}

/// The mean over all spatial axes: `[Batch, C]`. PyTorch: `x.mean((2, 3))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlobalAvgPool;

impl Module for GlobalAvgPool {
    fn kind(&self) -> &'static str {
        "GlobalAvgPool"
    }
    fn visit<'a>(&'a self, _: &mut dyn Visitor<'a>) {}
}

impl GlobalAvgPool {
    /// `[Batch, C, L]` or `[Batch, C, H, W]` to `[Batch, C]`.
    pub fn forward<X: Planes>(&self, x: X) -> X::Pooled {
        let _scope = crate::graph::trace::scope(self);
        x.mean_of_planes()
    }
}

impl<X: Planes> NeuralModule<X> for GlobalAvgPool {
    type Output = X::Pooled;
    fn call(&self, input: X) -> X::Pooled {
        self.forward(input)
    }
}

/// Joins all axes but the batch into `F`, whose size is proved to be their product. PyTorch:
/// `nn.Flatten()`.
///
/// ```
/// # extern crate mobilis_runtime as mobilis;
/// use mobilis::nn::{Flatten, Linear};
/// use mobilis::prelude::*;
///
/// axes! { Batch; Channels = 4; Height = 6; Width = 5; Features = Channels * Height * Width; Classes = 3; }
/// type Head = (Flatten<Features>, Linear<Features, Classes>);
///
/// fn logits(head: &Head, x: Tensor![Batch, Channels, Height, Width]) -> Tensor![Batch, Classes] {
///     head.call(x)
/// }
/// ```
pub struct Flatten<F: Axis>(PhantomData<fn() -> F>);

impl<F: Axis> Default for Flatten<F> {
    fn default() -> Self {
        Flatten(PhantomData)
    }
}

impl<F: Axis> Module for Flatten<F> {
    fn kind(&self) -> &'static str {
        "Flatten"
    }
    fn visit<'a>(&'a self, _: &mut dyn Visitor<'a>) {}
}

impl<F: Axis> Flatten<F> {
    /// `[Batch, C, L]` or `[Batch, C, H, W]` to `[Batch, F]`.
    pub fn forward<X: Planes>(&self, x: X) -> Tensor<(X::Batch, F)> {
        const { proof::factors::<F, X::Inner>() }
        let _scope = crate::graph::trace::scope(self);
        Tensor::from_raw(movement::reshape(x.handle(), vec![X::Batch::dim(), F::dim()]))
    }
}

impl<F: Axis, X: Planes> NeuralModule<X> for Flatten<F> {
    type Output = Tensor<(X::Batch, F)>;
    fn call(&self, input: X) -> Self::Output {
        self.forward(input)
    }
}
