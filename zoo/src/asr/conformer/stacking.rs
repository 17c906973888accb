//! Fewer frames before the first layer without convolutions: frames side by side and a linear layer, as
//! NeMo's `StackingSubsampling` (`stacking`, and `stacking_norm` with a norm of each frame before); or no
//! fewer frames, and the linear layer alone.
//!
//! Only whole stacks count. NeMo counts a stack whose end is missing where the batch's longest recording
//! happens to leave room for it, and none of a recording alone.

use super::axes::{ConformerAxes, Rate, Stack};
use super::pass::Pass;
use super::settings::{Settings, Subsampling};
use super::subsampling::{ConvSubsampling, whole_parts};
use crate::audio::Batch;
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::nn::{LayerNorm, Linear};
use mobilis_runtime::ops::{leaf, movement, slice};
use mobilis_runtime::prelude::*;

/// Frames side by side.
#[neural_module(no_default)]
pub struct Stacking<A: ConformerAxes> {
    /// Of each frame, before.
    pub pre_norm: Option<LayerNorm<A::Mels>>,
    /// `[Hidden, Stack * Mels]`
    pub proj_out: Linear<Prod<Stack, A::Mels>, A::Hidden>,
}

/// What stands before the first layer.
pub enum PreEncoder<A: ConformerAxes, R: Rate> {
    /// Convolutions.
    Conv(ConvSubsampling<A, R>),
    /// Frames side by side.
    Stacking(Stacking<A>),
    /// `[Hidden, Mels]`: a layer of each frame.
    Linear(Linear<A::Mels, A::Hidden>),
}

impl<A: ConformerAxes, R: Rate> Module for PreEncoder<A, R> {
    fn kind(&self) -> &'static str {
        match self {
            PreEncoder::Conv(inner) => inner.kind(),
            PreEncoder::Stacking(inner) => inner.kind(),
            PreEncoder::Linear(inner) => inner.kind(),
        }
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        match self {
            PreEncoder::Conv(inner) => inner.visit(visitor),
            PreEncoder::Stacking(inner) => inner.visit(visitor),
            PreEncoder::Linear(inner) => inner.visit(visitor),
        }
    }
}

impl<A: ConformerAxes, R: Rate> PreEncoder<A, R> {
    /// What settings ask for.
    pub(super) fn new(settings: &Settings) -> Self {
        match settings.subsampling {
            Subsampling::Striding | Subsampling::DwStriding => PreEncoder::Conv(ConvSubsampling::new(settings)),
            Subsampling::Stacking { norm } => {
                PreEncoder::Stacking(Stacking { pre_norm: norm.then(LayerNorm::default), proj_out: Linear::default() })
            }
            Subsampling::Linear => PreEncoder::Linear(Linear::default()),
        }
    }

    /// How many frames come out for `n` that go in, `[Batch]`.
    pub(super) fn lengths(&self, n: Handle) -> Handle {
        match self {
            PreEncoder::Conv(_) => ConvSubsampling::<A, R>::lengths(n),
            PreEncoder::Stacking(_) => {
                let size = leaf::index(Stack::extent());
                whole_parts(n, movement::broadcast(size, type_of(n).dims))
            }
            PreEncoder::Linear(_) => n,
        }
    }

    /// `[Batch, F, Mels]`, of which the first `counts` frames count, to the stream `[Batch, T, Hidden]`
    /// with `T` the axis `F` at this rate.
    pub(super) fn apply<F: Axis, T: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels)>,
        counts: Handle,
        pass: Option<&Pass>,
    ) -> Tensor<(Batch, T, A::Hidden)> {
        // Named by what is inside, whose scope it is.
        match self {
            PreEncoder::Conv(inner) => inner.apply::<F, T>(x, counts, pass),
            PreEncoder::Stacking(inner) => inner.apply::<F, T>(x),
            PreEncoder::Linear(inner) => {
                let y = inner.forward(x).raw();
                Tensor::from_raw(slice::slice(y, 1, Extent::constant(0), 1, T::dim()))
            }
        }
    }
}

impl<A: ConformerAxes> Stacking<A> {
    fn apply<F: Axis, T: Axis>(&self, x: Tensor<(Batch, F, A::Mels)>) -> Tensor<(Batch, T, A::Hidden)> {
        let _scope = trace::scope(self);
        let x = match &self.pre_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let batch = type_of(x.raw()).dims[0].clone();
        let whole = Extent::mul(T::extent(), Stack::extent());
        let x = slice::slice(x.raw(), 1, Extent::constant(0), 1, Dim::anonymous(whole));
        let flat = movement::reshape(x, vec![batch, T::dim(), <Prod<Stack, A::Mels>>::dim()]);
        self.proj_out.forward(Tensor::<(Batch, T, Prod<Stack, A::Mels>)>::from_raw(flat))
    }
}
