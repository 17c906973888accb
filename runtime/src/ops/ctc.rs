//! Connectionist temporal classification (Graves et al. 2006): minus the logarithm of the probability that frames
//! say a sequence of labels, whatever the times: every path of labels and blanks that gives the labels once runs
//! are joined and blanks left out counts.
//!
//! The softmax over classes is part of the operation, so logits and log-probabilities go in alike. With the posterior
//! `w_t(v)`, the part of all paths that are at class `v` in frame `t` (`crate::devices::reference::ctc` computes it):
//!
//! ```text
//! loss = -log sum over paths of product over t of softmax(x_t)[path_t]        gx_tv = g (softmax(x_t)_v - w_t(v))
//! ```
//!
//! **Lengths.** Frames and labels after a sequence's lengths count for nothing and have gradient 0. A sequence that its
//! frames cannot hold has an infinite loss, or 0 if asked for, and no gradient; so has one without frames, unless it
//! has no labels either (loss 0).

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, reduce};
use crate::graph::trace::{Handle, op1};
use crate::graph::{DType, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Indices, Is};
use crate::language::elements::Lengths;
use crate::tensor::Tensor;

/// How CTC is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CtcOptions {
    /// The class that is no label: NeMo's is the last, PyTorch's default the first.
    pub blank: usize,
    /// Whether sequences that their frames cannot hold have loss 0 instead of infinity. NeMo: true.
    pub zero_infinity: bool,
}

/// CTC per sequence. Inputs: logits `[b, t, classes]`, targets `[b, u]`, frames that count `[b]`, labels that count
/// `[b]`. Output: the losses `[b]`.
#[derive(Clone, Debug)]
pub struct Ctc(pub CtcOptions);

/// The gradient of [`Ctc`] by the logits: its inputs and the gradient by the losses.
#[derive(Clone, Debug)]
pub struct CtcGrad(pub CtcOptions);

/// Checks a batch of `logits [b, ..]`, `targets [b, u]` and lengths of both `[b]`.
pub(super) fn check_batch(logits: &TensorType, rest: [&TensorType; 3]) -> Result<(), String> {
    let [targets, frames, labels] = rest;
    let per = |t: &TensorType, rank| {
        t.dtype == DType::I32 && t.rank() == rank && logits.rank() > 0 && t.dims[0].extent == logits.dims[0].extent
    };
    if logits.dtype != DType::F32 || !per(targets, 2) || !per(frames, 1) || !per(labels, 1) {
        return Err(format!(
            "takes real values [b, ..], labels [b, u] and a number of frames and of labels for each of b, is given \
             {logits}, {targets}, {frames} and {labels}"
        ));
    }
    Ok(())
}

fn check(options: &CtcOptions, logits: &TensorType, rest: [&TensorType; 3]) -> Result<(), String> {
    check_batch(logits, rest)?;
    match logits.rank() {
        3 if logits.dims[2].extent.as_constant().is_none_or(|n| options.blank < n as usize) => Ok(()),
        3 => Err(format!("has class {} for blank, which {logits} do not have", options.blank)),
        _ => Err(format!("takes logits [b, t, classes], is given {logits}")),
    }
}

impl Rule for Ctc {
    fn name(&self) -> &'static str {
        "ctc"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, targets, frames, labels] = arity(inputs)?;
        check(&self.0, logits, [targets, frames, labels])?;
        Ok(vec![frames.with_dtype(DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inputs = cx.inputs.clone();
        inputs.push(cx.grad());
        Ok(vec![Some(op1(CtcGrad(self.0), &inputs)), None, None, None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(3)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("blank={}", self.0.blank)
    }
}

impl Rule for CtcGrad {
    fn name(&self) -> &'static str {
        "ctc_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, targets, frames, labels, g] = arity(inputs)?;
        check(&self.0, logits, [targets, frames, labels])?;
        match g.same_extents(frames) && g.dtype == DType::F32 {
            true => Ok(vec![logits.clone()]),
            false => Err(format!("takes a gradient for every sequence, is given {g}")),
        }
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of CTC are not implemented".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(6)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        format!("blank={}", self.0.blank)
    }
}

/// CTC per sequence of `logits [b, t, classes]` against `targets [b, u]`, of which `frames [b]` and `labels [b]` count.
pub fn ctc(logits: Handle, targets: Handle, [frames, labels]: [Handle; 2], options: CtcOptions) -> Handle {
    op1(Ctc(options), &[logits, targets, frames, labels])
}

/// Losses of sequences, to be joined.
#[must_use = "losses are joined by `.mean_batch()`, .. or read by `.each()`"]
pub struct SequenceLosses<B> {
    losses: Tensor<(B,)>,
    labels: Handle,
}

impl<B: Axis> SequenceLosses<B> {
    /// Losses and the numbers of labels.
    pub(super) fn new(losses: Handle, labels: Handle) -> Self {
        SequenceLosses { losses: Tensor::from_raw(losses), labels }
    }

    /// One loss per sequence. NeMo and PyTorch: `reduction="none"`.
    pub fn each(self) -> Tensor<(B,)> {
        self.losses
    }

    /// The sum. PyTorch: `reduction="sum"`.
    pub fn sum(self) -> Tensor<()> {
        Tensor::from_raw(reduce::reduce(self.losses.raw(), reduce::Kind::Sum, &[0]))
    }

    /// The mean over sequences. NeMo: `reduction="mean_batch"`.
    pub fn mean_batch(self) -> Tensor<()> {
        Tensor::from_raw(reduce::mean(self.losses.raw(), &[0]))
    }

    /// The mean over sequences of the loss per label, of at least one. PyTorch's `F.ctc_loss` and NeMo:
    /// `reduction="mean"`.
    pub fn mean(self) -> Tensor<()> {
        let count = ew::binary(ew::BinaryKind::Max, ew::cast(self.labels, DType::F32), leaf::scalar(1.0));
        Tensor::from_raw(reduce::mean(ew::div(self.losses.raw(), count), &[0]))
    }

    /// The sum divided by the number of labels of all sequences, of at least one: long sequences weigh more. NeMo:
    /// `reduction="mean_volume"`.
    pub fn mean_volume(self) -> Tensor<()> {
        let labels = reduce::reduce(ew::cast(self.labels, DType::F32), reduce::Kind::Sum, &[0]);
        let count = ew::binary(ew::BinaryKind::Max, labels, leaf::scalar(1.0));
        Tensor::from_raw(ew::div(self.sum().raw(), count))
    }
}

impl<B: Axis, T: Axis, V: Axis, E: Float> Tensor<(B, T, V), E> {
    /// The CTC loss of each sequence of these logits (or log-probabilities) against its labels; lengths say how many
    /// frames and labels of each count.
    /// PyTorch: `F.ctc_loss(log_softmax(x).transpose(0, 1), targets, frames, labels, blank)`; NeMo: `CTCLoss`.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::ops::ctc::CtcOptions;
    /// use mobilis::prelude::*;
    /// axes! { Batch; Frames; Text; Classes = 29; }
    ///
    /// fn loss(
    ///     logits: Tensor![Batch, Frames, Classes],
    ///     text: Tensor![Batch, Text; TokenId],
    ///     frames: Tensor![Batch; Lengths<Frames>],
    ///     letters: Tensor![Batch; Lengths<Text>],
    /// ) -> Tensor![] {
    ///     logits.ctc_loss(text, frames, letters, CtcOptions { blank: 28, zero_infinity: true }).mean_batch()
    /// }
    /// ```
    #[inline]
    pub fn ctc_loss<U: Axis, I: Indices, L: Is<Lengths<T>>, M: Is<Lengths<U>>>(
        self,
        targets: Tensor<(B, U), I>,
        frames: Tensor<(B,), L>,
        labels: Tensor<(B,), M>,
        options: CtcOptions,
    ) -> SequenceLosses<B> {
        let losses = ctc(self.raw(), targets.raw(), [frames.raw(), labels.raw()], options);
        SequenceLosses::new(losses, labels.raw())
    }
}
