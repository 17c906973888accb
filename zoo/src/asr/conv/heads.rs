//! What reads a convolutional encoder's stream.

use super::block::Sound;
use super::{ConvAxes, Counts, Steps, Stream};
use crate::audio::Batch;
use mobilis_runtime::graph::trace;
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::nn::listed;
use mobilis_runtime::nn::{Activation, Linear};
use mobilis_runtime::ops::{movement, reduce};
use mobilis_runtime::prelude::*;
use std::marker::PhantomData;

/// Logarithms of probabilities of each frame's classes; the last class is the blank. NeMo's `ConvASRDecoder`.
#[neural_module(no_default)]
pub struct CtcHead<A: ConvAxes> {
    /// `[Classes, Hidden, 1]`
    #[name("decoder_layers.0")]
    pub layer: listed::Conv1d,
    ports: PhantomData<fn() -> A>,
}

impl<A: ConvAxes> Default for CtcHead<A> {
    fn default() -> Self {
        let channels = [&A::Hidden::dim(), &A::Classes::dim()];
        CtcHead { layer: listed::Conv1d::new(channels, listed::Steps::POINT, true), ports: PhantomData }
    }
}

#[neural_module]
impl<A: ConvAxes> CtcHead<A> {
    /// `[Batch, Steps, Hidden]` to `[Batch, Steps, Classes]`.
    pub fn forward(&self, x: Stream<A>) -> Tensor<(Batch, Steps, A::Classes), LogProbs> {
        let logits = self.layer.apply(movement::permute(x.raw(), &[0, 2, 1]));
        let logits = Tensor::<(Batch, Steps, A::Classes)>::from_raw(movement::permute(logits, &[0, 2, 1]));
        logits.log_softmax(A::Classes::AXIS).assume()
    }
}

/// What a whole recording is: the mean over its frames, and a linear layer. NeMo's
/// `ConvASRDecoderClassification`, which takes the mean over padding too; where recordings are cropped or padded to
/// one length before the encoder, as its recipes do, both are the same.
#[neural_module]
pub struct Classifier<A: ConvAxes> {
    /// `[Classes, Hidden]`
    #[name("decoder_layers.0")]
    pub layer: Linear<A::Hidden, A::Classes>,
}

#[neural_module]
impl<A: ConvAxes> Classifier<A> {
    /// `[Batch, Steps, Hidden]` to logits `[Batch, Classes]`.
    pub fn forward(&self, x: Stream<A>, lengths: Counts<Steps>) -> Tensor<(Batch, A::Classes), Logits> {
        let mean = Sound { x: movement::permute(x.raw(), &[0, 2, 1]), lengths: lengths.raw() }.mean();
        self.layer.forward(Tensor::<(Batch, A::Hidden)>::from_raw(mean)).assume()
    }

    /// The same with the mean over all frames, as NeMo has it, for recordings of one length.
    pub fn whole(&self, x: Stream<A>) -> Tensor<(Batch, A::Classes), Logits> {
        let mean = reduce::mean(x.raw(), &[1]);
        self.layer.forward(Tensor::<(Batch, A::Hidden)>::from_raw(mean)).assume()
    }
}

/// What each frame is. NeMo's `MultiLayerPerceptron`, where it reads an encoder's frames: linear layers with ReLU
/// between, called `layer0`, `layer2`, ..
pub struct FrameClassifier<A: ConvAxes> {
    inner: Vec<listed::Linear>,
    last: Linear<A::Hidden, A::Classes>,
}

impl<A: ConvAxes> FrameClassifier<A> {
    /// A classifier of so many layers.
    pub fn new(layers: usize) -> Self {
        let hidden = A::Hidden::dim();
        let inner = (1..layers).map(|_| listed::Linear::new([&hidden, &hidden], true)).collect();
        FrameClassifier { inner, last: Linear::default() }
    }

    /// `[Batch, Steps, Hidden]` to logits `[Batch, Steps, Classes]`.
    pub fn forward(&self, x: Stream<A>) -> Tensor<(Batch, Steps, A::Classes), Logits> {
        let _scope = trace::scope(self);
        let x = self.inner.iter().fold(x.raw(), |x, layer| Activation::Relu.apply(layer.apply(x)));
        self.last.forward(Stream::<A>::from_raw(x)).assume()
    }
}

impl<A: ConvAxes> Module for FrameClassifier<A> {
    fn kind(&self) -> &'static str {
        "FrameClassifier"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        for (i, layer) in self.inner.iter().enumerate() {
            visitor.module(&format!("layer{}", 2 * i), layer);
        }
        visitor.module(&format!("layer{}", 2 * self.inner.len()), &self.last);
    }
}
