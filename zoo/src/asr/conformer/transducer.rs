//! The heads of a transducer: a predictor that reads what was said so far, and a joint network that says
//! what comes next at a frame.
//!
//! Graves 2012 (<https://arxiv.org/abs/1211.3711>), as NeMo's `RNNTDecoder` and `RNNTJoint`. Blank is the last
//! class; its row of the table is what NeMo calls `blank_as_pad`: zeros, which stand for "nothing said yet".
//! With durations behind the classes (TDT: Xu et al. 2023, <https://arxiv.org/abs/2304.06795>) the joint also
//! says how many frames on the next answer is to be looked for.

use super::axes::ConformerAxes;
use super::layer::Stream;
use crate::audio::Batch;
use mobilis_runtime::graph::Dim;
use mobilis_runtime::graph::trace::{self, Mode};
use mobilis_runtime::module::{AnyVar, Visitor};
use mobilis_runtime::nn::{Activation, Embedding, Linear, Lstm};
use mobilis_runtime::ops::ctc::SequenceLosses;
use mobilis_runtime::ops::transducer::{Joint, TransducerOptions};
use mobilis_runtime::ops::{elementwise as ew, leaf, movement, reduce, slice};
use mobilis_runtime::prelude::*;

/// States of the predictor's layers: hidden values and cells, each `[1, Batch, Pred]`.
pub type Memories<A> = Vec<[Tensor<(Const<1>, Batch, <A as ConformerAxes>::Pred)>; 2]>;

/// An LSTM whose depth is known at run time, by PyTorch's names (`weight_ih_l0`, `weight_ih_l1`, ..).
pub struct DeepLstm<H: Axis> {
    /// The layers, in order.
    pub layers: Vec<Lstm<H, H>>,
}

/// Shows the variables of layer 0 under the number of another.
struct Numbered<'v, 'a> {
    to: &'v mut dyn Visitor<'a>,
    number: usize,
}

impl<'a> Visitor<'a> for Numbered<'_, 'a> {
    fn module(&mut self, name: &str, module: &'a dyn Module) {
        self.to.module(name, module);
    }
    fn var(&mut self, name: &str, var: &'a dyn AnyVar) {
        let stem = name.strip_suffix("_l0").unwrap_or(name);
        self.to.var(&format!("{stem}_l{}", self.number), var);
    }
    fn hyper(&mut self, name: &str, value: String) {
        self.to.hyper(name, value);
    }
}

impl<H: Axis> Module for DeepLstm<H> {
    fn kind(&self) -> &'static str {
        "DeepLstm"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        for (number, layer) in self.layers.iter().enumerate() {
            layer.visit(&mut Numbered { to: visitor, number });
        }
    }
}

/// A table of tokens and an LSTM over them.
#[neural_module(no_default)]
pub struct Prediction<A: ConformerAxes> {
    /// `[Classes, Pred]`
    pub embed: Embedding<A::Classes, A::Pred>,
    /// Over the tokens said so far.
    #[name("dec_rnn.lstm")]
    pub lstm: DeepLstm<A::Pred>,
    /// The probability that a result's value is dropped while training.
    pub dropout: f64,
}

/// The predictor.
#[neural_module(no_default)]
pub struct RnntDecoder<A: ConformerAxes> {
    /// All of it, which NeMo keeps one level down.
    pub prediction: Prediction<A>,
    /// Whether a vector of zeros stands for "nothing said yet"; otherwise blank's row of the table
    /// (Hugging Face).
    pub zero_start: bool,
}

impl<A: ConformerAxes> RnntDecoder<A> {
    /// A predictor of so many layers.
    pub fn new(layers: usize, dropout: f64, zero_start: bool) -> Self {
        let lstm = DeepLstm { layers: (0..layers).map(|_| Lstm::default()).collect() };
        RnntDecoder { prediction: Prediction { embed: Embedding::default(), lstm, dropout }, zero_start }
    }

    /// Tokens `[Batch, U]` after a state (zeros where there is none), to what is predicted after each,
    /// `[Batch, U, Pred]`, and the state behind the last.
    ///
    /// `starts` says of each whether it stands for "nothing said yet".
    pub fn read<U: Axis>(
        &self,
        tokens: Tensor<(Batch, U), impl Indices>,
        starts: Option<Tensor<(Batch, U), Mask>>,
        state: Option<Memories<A>>,
    ) -> (Tensor<(Batch, U, A::Pred)>, Memories<A>) {
        let _scope = trace::scope(self);
        let tokens: Tensor<(Batch, U), Index> = Tensor::from_raw(tokens.raw());
        let mut x: Tensor<(Batch, U, A::Pred)> = self.prediction.embed.forward(tokens);
        if let Some(starts) = starts.filter(|_| self.zero_start) {
            let dims = Tensor::<(Batch, U, A::Pred)>::type_of();
            let mask = reduce::restore(starts.raw(), &dims.dims, &[2]);
            x = Tensor::from_raw(ew::select(mask, leaf::fill(0.0, dims), x.raw()));
        }
        let mut after = vec![];
        for (i, layer) in self.prediction.lstm.layers.iter().enumerate() {
            let (y, (h, c)) = match &state {
                Some(state) => layer.forward_from(x, (state[i][0], state[i][1])),
                None => layer.forward(x),
            };
            x = y;
            after.push([h, c]);
        }
        (x.dropout(self.prediction.dropout), after)
    }

    /// Whole targets `[Batch, U]` to what is predicted before the first and after each, `[Batch, U + 1,
    /// Pred]`.
    pub fn whole<U: Axis>(
        &self,
        targets: Tensor<(Batch, U), impl Indices>,
    ) -> Tensor<(Batch, Sum<U, Const<1>>, A::Pred)> {
        type Begun<U> = (Batch, Sum<U, Const<1>>);
        let dims = Tensor::<Begun<U>, Index>::type_of();
        let classes = movement::broadcast(leaf::index(A::Classes::extent()), vec![Batch::dim(), Dim::fixed(1)]);
        let blank = ew::sub(classes, ew::constant_like(classes, 1.0));
        let begun: Tensor<Begun<U>, Index> =
            Tensor::from_raw(slice::concat(&[blank, targets.raw()], 1, <Sum<U, Const<1>>>::dim()));
        let place = leaf::iota(1, &dims);
        let first: Tensor<Begun<U>, Mask> =
            Tensor::from_raw(ew::compare(ew::CompareKind::Eq, place, leaf::fill(0.0, dims)));
        self.read(begun, Some(first), None).0
    }
}

/// The joint network: `out(activation(enc f + pred g))` for a frame `f` and a prediction `g`.
pub struct RnntJoint<A: ConformerAxes> {
    /// `[Joint, Pred]`
    pub pred: Linear<A::Pred, A::Joint>,
    /// `[Joint, Hidden]`
    pub enc: Linear<A::Hidden, A::Joint>,
    /// `[Outputs, Joint]`
    pub out: Linear<A::Joint, A::Outputs>,
    /// What is between.
    pub activation: Activation,
    /// The probability that a value between is dropped while training.
    pub dropout: f64,
}

/// By NeMo's names: a list of the activation, dropout if there is any, and the last layer.
impl<A: ConformerAxes> Module for RnntJoint<A> {
    fn kind(&self) -> &'static str {
        "RnntJoint"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("pred", &self.pred);
        visitor.module("enc", &self.enc);
        visitor.module(if self.dropout > 0.0 { "joint_net.2" } else { "joint_net.1" }, &self.out);
    }
}

impl<A: ConformerAxes> RnntJoint<A> {
    /// A joint network.
    pub fn new(activation: Activation, dropout: f64) -> Self {
        RnntJoint { pred: Linear::default(), enc: Linear::default(), out: Linear::default(), activation, dropout }
    }

    /// Frames `[Batch, T, Hidden]` as the joint takes them.
    pub fn frames<T: Axis>(&self, x: Stream<A, T>) -> Tensor<(Batch, T, A::Joint)> {
        let _scope = trace::scope(self);
        self.enc.forward(x)
    }

    /// Predictions `[Batch, U, Pred]` as the joint takes them.
    pub fn predictions<U: Axis>(&self, x: Tensor<(Batch, U, A::Pred)>) -> Tensor<(Batch, U, A::Joint)> {
        let _scope = trace::scope(self);
        self.pred.forward(x)
    }

    /// Every frame with every prediction: logits `[Batch, T, U, Outputs]`.
    pub fn all<T: Axis, U: Axis>(
        &self,
        frames: Tensor<(Batch, T, A::Joint)>,
        predictions: Tensor<(Batch, U, A::Joint)>,
    ) -> Tensor<(Batch, T, U, A::Outputs)> {
        let _scope = trace::scope(self);
        let ty = Tensor::<(Batch, T, U, A::Joint)>::type_of();
        let sum =
            ew::add(reduce::restore(frames.raw(), &ty.dims, &[2]), reduce::restore(predictions.raw(), &ty.dims, &[1]));
        let inner: Tensor<(Batch, T, U, A::Joint)> = Tensor::from_raw(self.activation.apply(sum));
        self.out.forward(inner.dropout(self.dropout))
    }

    /// The losses of targets, whose labels count so far as they say, of `frames` as [`frames`](Self::frames) gives them
    /// and `predictions` as [`predictions`](Self::predictions) does. The logits of all pairs are in memory only where
    /// dropout asks for it (or an activation that the fused operation does not have).
    pub fn losses<T: Axis, U: Axis>(
        &self,
        frames: Tensor<(Batch, T, A::Joint)>,
        predictions: Tensor<(Batch, Sum<U, Const<1>>, A::Joint)>,
        (labels, counts): (Tensor<(Batch, U), Index>, Tensor<(Batch,), Lengths<U>>),
        steps: Tensor<(Batch,), Lengths<T>>,
        options: &TransducerOptions,
    ) -> SequenceLosses<Batch> {
        let fused = match self.activation {
            Activation::Relu => Some(Joint::Relu),
            Activation::Tanh => Some(Joint::Tanh),
            _ => None,
        };
        let drops = self.dropout > 0.0 && trace::mode() == Mode::Train;
        match (fused.filter(|_| !drops), &self.out.bias) {
            (Some(joint), Some(bias)) => {
                let _scope = trace::scope(self);
                let last = (self.out.weight.get(), bias.get());
                frames.joint_loss(predictions, last, joint, labels, steps, counts, options)
            }
            _ => self.all(frames, predictions).transducer_loss(labels, steps, counts, options),
        }
    }

    /// Pairs of a frame and a prediction, `[Batch, Joint]` each: logits `[Batch, Outputs]`.
    pub fn pairs(
        &self,
        frames: Tensor<(Batch, A::Joint)>,
        predictions: Tensor<(Batch, A::Joint)>,
    ) -> Tensor<(Batch, A::Outputs)> {
        let _scope = trace::scope(self);
        let inner: Tensor<(Batch, A::Joint)> = Tensor::from_raw(self.activation.apply((frames + predictions).raw()));
        self.out.forward(inner)
    }
}
