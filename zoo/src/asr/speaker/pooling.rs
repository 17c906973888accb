//! From frames to one vector: attentive statistics (Okabe et al. 2018, <https://arxiv.org/abs/1803.10963>), as NeMo's
//! `SpeakerDecoder`.
//!
//! An attention over frames that sees each frame, the recording's mean and its deviation weighs the frames, channel by
//! channel; weighted means and deviations go through linear layers to the vector, and from there to the speakers of
//! the training. Frames beyond a recording's length weigh nothing.

use super::super::conv::block::Sound;
use super::super::conv::{ConvAxes, Counts, Steps as Frames, Stream};
use crate::audio::Batch;
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::nn::Activation;
use mobilis_runtime::nn::listed::{BatchNorm, Conv1d, Linear, Steps};
use mobilis_runtime::ops::elementwise::{self as ew, UnaryKind};
use mobilis_runtime::ops::{leaf, movement, reduce, slice, softmax};
use mobilis_runtime::prelude::*;
use std::marker::PhantomData;

axes! {
    /// The width of a voice's vector.
    pub Embedding;
}

/// Channels of the attention.
const ATTENTION: u64 = 128;
/// Added where a deviation is taken.
const EPS: f64 = 1e-10;

fn times(dim: &Dim, n: u64) -> Dim {
    Dim::anonymous(Extent::mul(Extent::constant(n), dim.extent.clone()))
}

/// Rows of length 1.
fn unit<H: Axis>(x: Tensor<(Batch, H)>) -> Tensor<(Batch, H)> {
    let length = ew::unary(UnaryKind::Sqrt, reduce::sum_squares(x.raw(), &[1]));
    let length = ew::maximum(length, leaf::scalar(1e-12));
    Tensor::from_raw(ew::div(x.raw(), reduce::restore(length, &type_of(x.raw()).dims, &[1])))
}

/// Weighted mean and deviation over time of `x [batch, channels, time]`, each `[batch, channels]`. Weights add up to 1.
fn statistics(x: Handle, weights: Handle) -> (Handle, Handle) {
    let dims = type_of(x).dims;
    let sum = |h: Handle| reduce::reduce(h, reduce::Kind::Sum, &[2]);
    let mean = sum(ew::mul(weights, x));
    let away = ew::sub(x, reduce::restore(mean, &dims, &[2]));
    let variance = sum(ew::mul(weights, ew::mul(away, away)));
    (mean, ew::unary(UnaryKind::Sqrt, ew::maximum(variance, leaf::scalar(EPS))))
}

/// A convolution, ReLU and a norm: NeMo's `TDNNModule`.
#[neural_module(no_default)]
pub struct Tdnn {
    /// The convolution.
    pub conv_layer: Conv1d,
    /// The norm.
    pub bn: BatchNorm,
}

impl Tdnn {
    /// Of these channels.
    pub fn new(channels: [&Dim; 2], kernel: u64, dilation: u64) -> Tdnn {
        let conv_layer = Conv1d::new(channels, Steps::same(kernel, 1, dilation), true);
        Tdnn { conv_layer, bn: BatchNorm::new(channels[1], 1e-5) }
    }

    /// `[batch, channels, time]` to the same time.
    pub fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        self.bn.apply(Activation::Relu.apply(self.conv_layer.apply(x)))
    }
}

/// NeMo's `AttentivePoolLayer`.
#[neural_module(no_default)]
pub struct AttentivePool {
    /// Sees frame, mean and deviation.
    #[name("attention_layer.0")]
    pub first: Tdnn,
    /// Weighs each channel.
    #[name("attention_layer.2")]
    pub last: Conv1d,
}

impl AttentivePool {
    fn new(channels: &Dim) -> AttentivePool {
        let inner = Dim::fixed(ATTENTION);
        AttentivePool {
            first: Tdnn::new([&times(channels, 3), &inner], 1, 1),
            last: Conv1d::new([&inner, channels], Steps::POINT, true),
        }
    }

    /// `[batch, channels, time]` to `[batch, 2 channels]`.
    fn apply(&self, sound: Sound) -> Handle {
        let _scope = trace::scope(self);
        let dims = type_of(sound.x).dims;
        if dims.len() != 3 {
            return sound.x;
        }
        let one = leaf::fill(1.0, type_of(sound.x));
        let (_, count) = Sound { x: one, ..sound }.summed();
        let mask = sound.mask();
        let even = ew::div(ew::select(mask, one, leaf::scalar(0.0)), reduce::restore(count, &dims, &[2]));
        let (mean, std) = statistics(sound.masked(), even);
        let wide = |h: Handle| reduce::restore(h, &dims, &[2]);
        let joined = slice::concat(&[sound.masked(), wide(mean), wide(std)], 1, times(&dims[1], 3));
        let inner = ew::unary(UnaryKind::Tanh, self.first.apply(joined));
        let scores = self.last.apply(inner);
        let scores = ew::select(mask, movement::relabel(scores, dims.clone()), leaf::scalar(f64::NEG_INFINITY));
        let (mean, std) = statistics(sound.masked(), softmax::softmax(scores, 2));
        slice::concat(&[mean, std], 1, times(&dims[1], 2))
    }
}

/// NeMo's `SpeakerDecoder` with attention.
pub struct SpeakerDecoder<A: ConvAxes> {
    pool: AttentivePool,
    layers: Vec<(BatchNorm, Conv1d)>,
    last: Linear,
    angular: bool,
    ports: PhantomData<fn() -> A>,
}

impl<A: ConvAxes> SpeakerDecoder<A> {
    /// A decoder by way of vectors of these widths; the last is [`Embedding`]. `angular` where speakers are told apart
    /// by angles alone.
    pub fn new(widths: &[u64], angular: bool) -> Self {
        let mut from = times(&A::Hidden::dim(), 2);
        let mut layers = Vec::new();
        for (i, width) in widths.iter().enumerate() {
            let to = if i + 1 == widths.len() { Embedding::dim() } else { Dim::fixed(*width) };
            layers.push((BatchNorm::new(&from, 1e-5), Conv1d::new([&from, &to], Steps::POINT, true)));
            from = to;
        }
        let last = Linear::new([&from, &A::Classes::dim()], !angular);
        SpeakerDecoder { pool: AttentivePool::new(&A::Hidden::dim()), layers, last, angular, ports: PhantomData }
    }

    /// The stream `[Batch, Steps, Hidden]` to vectors `[Batch, Embedding]` and what is said of the training's speakers,
    /// `[Batch, Classes]`: cosines where angles count. (NeMo means to make the rows of `final` of length 1 then, but
    /// assigns them to a name that nobody reads; what it computes is what is computed here.)
    #[allow(clippy::type_complexity)]
    pub fn forward(
        &self,
        x: Stream<A>,
        lengths: Counts<Frames>,
    ) -> (Tensor<(Batch, Embedding)>, Tensor<(Batch, A::Classes), Logits>) {
        let _scope = trace::scope(self);
        let sound = Sound { x: movement::permute(x.raw(), &[0, 2, 1]), lengths: lengths.raw() };
        let pooled = self.pool.apply(sound);
        let mut dims = type_of(pooled).dims;
        dims.push(Dim::fixed(1));
        let mut out = movement::reshape(pooled, dims);
        for (norm, conv) in &self.layers {
            out = conv.apply(norm.apply(out));
        }
        let mut dims = type_of(out).dims;
        dims.truncate(2);
        let vector = Tensor::<(Batch, Embedding)>::from_raw(movement::reshape(out, dims));
        let heard = if self.angular { unit(vector) } else { vector };
        (vector, Tensor::from_raw(self.last.apply(heard.raw())))
    }
}

impl<A: ConvAxes> Module for SpeakerDecoder<A> {
    fn kind(&self) -> &'static str {
        "SpeakerDecoder"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("_pooling", &self.pool);
        for (i, (norm, conv)) in self.layers.iter().enumerate() {
            visitor.module(&format!("emb_layers.{i}.0"), norm);
            visitor.module(&format!("emb_layers.{i}.1"), conv);
        }
        visitor.module("final", &self.last);
    }
}
