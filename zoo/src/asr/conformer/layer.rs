//! A layer of a Conformer (Gulati et al. 2020, <https://arxiv.org/abs/2005.08100>), as NeMo's
//! `ConformerLayer`: half a feed-forward layer, attention, convolution, half a feed-forward layer, each
//! over a norm of the stream and added to it, and a norm at the end.

use super::attention::SelfAttention;
use super::axes::ConformerAxes;
use super::mask::masked;
use super::pass::{Flow, Pass};
use super::settings::{ConvNorm, Settings};
use crate::audio::Batch;
use mobilis_runtime::graph::trace::type_of;
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::module::init::Init;
use mobilis_runtime::nn::{BatchNorm, LayerNorm, Linear};
use mobilis_runtime::ops::conv::{Geometry, conv_to};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{contraction, elementwise as ew, movement};
use mobilis_runtime::prelude::*;

/// The stream over frames `T`.
pub type Stream<A, T> = Tensor<(Batch, T, <A as ConformerAxes>::Hidden)>;

/// A linear layer with or without a bias.
fn linear<I: Axis, O: Axis>(bias: bool) -> Linear<I, O> {
    if bias { Linear::default() } else { Linear::default().no_bias() }
}

/// `linear2(dropout(silu(linear1 x)))`.
#[neural_module(no_default)]
pub struct FeedForward<A: ConformerAxes> {
    /// `[Ffn, Hidden]`
    pub linear1: Linear<A::Hidden, A::Ffn>,
    /// `[Hidden, Ffn]`
    pub linear2: Linear<A::Ffn, A::Hidden>,
    /// The probability that a value between them is dropped while training.
    pub dropout: f64,
}

#[neural_module]
impl<A: ConformerAxes> FeedForward<A> {
    /// `[Batch, T, Hidden]` to the same.
    pub fn forward<T: Axis>(&self, x: Stream<A, T>) -> Stream<A, T> {
        self.linear2.forward(self.linear1.forward(x).silu().dropout(self.dropout))
    }
}

/// A convolution that looks at one frame, over frames of channels: a linear layer whose weight is
/// stored as a convolution's.
#[neural_module(no_default)]
pub struct Pointwise<I: Axis, O: Axis> {
    /// `[O, I, 1]`
    pub weight: Param<(O, I, Const<1>)>,
    /// `[O]`
    pub bias: Option<Param<(O,)>>,
}

impl<I: Axis, O: Axis> Pointwise<I, O> {
    /// A layer with or without a bias.
    pub fn new(bias: bool) -> Self {
        Pointwise { weight: Param::default(), bias: bias.then(Param::default) }
    }
}

#[neural_module]
impl<I: Axis, O: Axis> Pointwise<I, O> {
    /// `[Batch, T, I]` to `[Batch, T, O]`.
    pub fn forward<T: Axis>(&self, x: Tensor<(Batch, T, I)>) -> Tensor<(Batch, T, O)> {
        let weight = movement::reshape(self.weight.get().raw(), vec![O::dim(), I::dim()]);
        let y = contraction::linear(x.raw(), weight);
        Tensor::from_raw(match &self.bias {
            Some(bias) => ew::add(y, bias.get().raw()),
            None => y,
        })
    }
}

/// The frames that the convolution sees: those before, the present one, those behind.
type Kernel<A> = Sum<Sum<<A as ConformerAxes>::Before, <A as ConformerAxes>::After>, Const<1>>;

/// A convolution over frames of each channel with its own filter.
#[neural_module(no_default)]
pub struct Depthwise<A: ConformerAxes> {
    /// `[Hidden, 1, Before + After + 1]`
    pub weight: Param<(A::Hidden, Const<1>, Kernel<A>)>,
    /// `[Hidden]`
    pub bias: Option<Param<(A::Hidden,)>>,
}

#[neural_module]
impl<A: ConformerAxes> Depthwise<A> {
    /// `[Batch, Hidden, T]` to the same. Beyond both ends of a recording there are zeros; a stream's
    /// beginning is what came before.
    pub fn forward<T: Axis>(&self, x: Tensor<(Batch, A::Hidden, T)>, pass: &Pass<'_>) -> Tensor<(Batch, A::Hidden, T)> {
        let dims = type_of(x.raw()).dims;
        let [before, after] = [A::Before::extent(), A::After::extent()];
        let wide = match &pass.flow {
            Flow::Whole => {
                let long = Extent::add(Extent::add(T::extent(), before.clone()), after.clone());
                pad_zeros(x.raw(), 2, before, after, Dim::anonymous(long))
            }
            // Encoders of streams see nothing behind: the padding there is of no frames.
            Flow::Stream(stream) => {
                let x = stream.behind::<(Batch, A::Hidden, A::Before)>("conv", x.raw(), 2);
                let long = Extent::add(Extent::add(T::extent(), before), after.clone());
                pad_zeros(x, 2, Extent::constant(0), after, Dim::anonymous(long))
            }
        };
        let geometry = Geometry::square(1, 1, 0, 1).grouped(A::Hidden::extent());
        let bias = self.bias.as_ref().map(|b| b.get().raw());
        Tensor::from_raw(conv_to(wide, self.weight.get().raw(), bias, &geometry, dims))
    }
}

/// The norm of a convolution.
pub enum Norm<H: Axis> {
    /// Of each channel over batch and time.
    Batch(BatchNorm<H>),
    /// Of each frame over channels.
    Layer(LayerNorm<H>),
    /// A factor and a bias of each channel.
    Scale(Scale<H>),
}

/// A factor and a bias of each channel: what NeMo makes of a norm over the batch to train on without it.
#[neural_module]
pub struct Scale<H: Axis> {
    /// `[H]`
    pub weight: Param<(H,)>,
    /// `[H]`
    pub bias: Param<(H,)>,
}

#[neural_module]
impl<H: Axis> Scale<H> {
    /// `[Batch, T, H]` to the same.
    pub fn forward<T: Axis>(&self, x: Tensor<(Batch, T, H)>) -> Tensor<(Batch, T, H)> {
        Tensor::from_raw(ew::add(ew::mul(x.raw(), self.weight.get().raw()), self.bias.get().raw()))
    }
}

impl<H: Axis> Module for Norm<H> {
    fn kind(&self) -> &'static str {
        match self {
            Norm::Batch(norm) => norm.kind(),
            Norm::Layer(norm) => norm.kind(),
            Norm::Scale(scale) => scale.kind(),
        }
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        match self {
            Norm::Batch(norm) => norm.visit(visitor),
            Norm::Layer(norm) => norm.visit(visitor),
            Norm::Scale(scale) => scale.visit(visitor),
        }
    }
}

/// Pointwise to twice the width, gated; depthwise; norm; silu; pointwise.
#[neural_module(no_default)]
pub struct Convolution<A: ConformerAxes> {
    /// `[2 * Hidden, Hidden, 1]`
    pub pointwise_conv1: Pointwise<A::Hidden, Prod<Const<2>, A::Hidden>>,
    /// `[Hidden, 1, Before + After + 1]`
    pub depthwise_conv: Depthwise<A>,
    /// The norm, which NeMo calls so whichever it is.
    pub batch_norm: Norm<A::Hidden>,
    /// `[Hidden, Hidden, 1]`
    pub pointwise_conv2: Pointwise<A::Hidden, A::Hidden>,
}

#[neural_module]
impl<A: ConformerAxes> Convolution<A> {
    /// `[Batch, T, Hidden]` to the same; frames that do not count are zeros to the convolution.
    pub fn forward<T: Axis>(&self, x: Stream<A, T>, pass: &Pass<'_>) -> Stream<A, T> {
        let gated = self.pointwise_conv1.forward(x).glu(<Prod<Const<2>, A::Hidden>>::AXIS, A::Hidden::AXIS);
        let counted = masked(gated.raw(), pass.present(), 1);
        let channels = Tensor::from_raw(movement::permute(counted, &[0, 2, 1]));
        let y: Tensor<(Batch, A::Hidden, T)> = self.depthwise_conv.forward(channels, pass);
        let frames =
            |y: Tensor<(Batch, A::Hidden, T)>| Stream::<A, T>::from_raw(movement::permute(y.raw(), &[0, 2, 1]));
        let y = match &self.batch_norm {
            Norm::Batch(norm) => frames(norm.forward(y)),
            Norm::Layer(norm) => norm.forward(frames(y)),
            Norm::Scale(scale) => scale.forward(frames(y)),
        };
        self.pointwise_conv2.forward(y.silu())
    }
}

/// A layer.
#[neural_module(no_default)]
pub struct ConformerLayer<A: ConformerAxes> {
    /// The norm before the first feed-forward layer.
    pub norm_feed_forward1: LayerNorm<A::Hidden>,
    /// The first feed-forward layer.
    pub feed_forward1: FeedForward<A>,
    /// The norm before the convolution.
    pub norm_conv: LayerNorm<A::Hidden>,
    /// The convolution.
    pub conv: Convolution<A>,
    /// The norm before attention.
    pub norm_self_att: LayerNorm<A::Hidden>,
    /// Attention.
    pub self_attn: SelfAttention<A>,
    /// The norm before the second feed-forward layer.
    pub norm_feed_forward2: LayerNorm<A::Hidden>,
    /// The second feed-forward layer.
    pub feed_forward2: FeedForward<A>,
    /// The norm at the end.
    pub norm_out: LayerNorm<A::Hidden>,
    /// The probability that what a part adds is dropped while training.
    pub dropout: f64,
}

impl<A: ConformerAxes> ConformerLayer<A> {
    /// A layer of an encoder; `shared` are the biases of attention that all layers have in common.
    pub(super) fn new(settings: &Settings, shared: Option<&[Param<(A::Heads, A::HeadDim)>; 2]>) -> Self {
        let (bias, dropout) = (settings.bias, settings.dropouts.layer);
        let norm = LayerNorm::default;
        let feed_forward = || FeedForward { linear1: linear(bias), linear2: linear(bias), dropout };
        ConformerLayer {
            norm_feed_forward1: norm(),
            feed_forward1: feed_forward(),
            norm_conv: norm(),
            conv: Convolution {
                pointwise_conv1: Pointwise::new(bias),
                depthwise_conv: Depthwise { weight: Param::default(), bias: bias.then(Param::default) },
                batch_norm: match settings.conv_norm {
                    ConvNorm::Batch => Norm::Batch(BatchNorm::default()),
                    ConvNorm::Layer => Norm::Layer(LayerNorm::default()),
                    ConvNorm::Scale => {
                        Norm::Scale(Scale { weight: Param::new(Init::Ones), bias: Param::new(Init::Zeros) })
                    }
                },
                pointwise_conv2: Pointwise::new(bias),
            },
            norm_self_att: norm(),
            self_attn: SelfAttention::new(settings, shared),
            norm_feed_forward2: norm(),
            feed_forward2: feed_forward(),
            norm_out: norm(),
            dropout,
        }
    }
}

#[neural_module]
impl<A: ConformerAxes> ConformerLayer<A> {
    /// `[Batch, T, Hidden]` to the same.
    pub fn forward<T: Axis>(&self, x: Stream<A, T>, pass: &Pass<'_>) -> Stream<A, T> {
        let dropped = |y: Stream<A, T>| y.dropout(self.dropout);
        let x = x + dropped(self.feed_forward1.forward(self.norm_feed_forward1.forward(x))) * 0.5;
        let x = x + dropped(self.self_attn.forward(self.norm_self_att.forward(x), pass));
        let x = x + dropped(self.conv.forward(self.norm_conv.forward(x), pass));
        let x = x + dropped(self.feed_forward2.forward(self.norm_feed_forward2.forward(x))) * 0.5;
        self.norm_out.forward(x)
    }
}
