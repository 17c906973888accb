//! Losses. Cross-entropy is coarse, so that the probabilities of a large vocabulary are never in
//! memory; the others compose small operations.
//!
//! For a row of logits `x` over `n` classes with target `c`, `lse = log sum exp x`, label smoothing
//! `a` (Szegedy et al. 2016) and z-loss `w` (PaLM, Chowdhery et al. 2022):
//!
//! ```text
//! loss = lse - (1 - a) x_c - a * mean(x) + w * lse^2
//! gx_j = g * ((1 + 2 w lse) softmax(x)_j - (1 - a) [j = c] - a / n)
//! ```
//!
//! Where a projection gives the logits and nothing but the loss and its gradient reads them, a program
//! joins these ([`crate::transforms::head`]): the logits are then never in memory as a whole either.
//!
//! A row whose target is the ignored index has loss and gradient 0 and does not count in a mean.
//! A target that is neither a class nor the ignored index is an error when the program runs.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::ops::loss::CrossEntropyOptions;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Vocab = 256; }
//!
//! fn loss(logits: Tensor![Batch, Time, Vocab], next: Tensor![Batch, Time; TokenId]) -> Tensor![] {
//!     logits.cross_entropy(next)
//! }
//!
//! fn smoothed(logits: Tensor![Batch, Time, Vocab], next: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time] {
//!     let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
//!     logits.cross_entropy_with(next, options).each()
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, arity, elementwise as ew, leaf, reduce};
use crate::graph::trace::{Handle, op1, opn, type_of};
use crate::graph::{DType, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Element, Float, Indices};
use crate::language::shape::{EndsWith, Shape};
use crate::tensor::Tensor;

/// How cross-entropy is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropyOptions {
    /// Targets of this value are left out. PyTorch's default is -100.
    pub ignore_index: Option<i32>,
    /// The part of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// The weight of the squared log-sum-exp.
    pub z_loss: f64,
}

impl Default for CrossEntropyOptions {
    /// PyTorch's: index -100 is ignored, no smoothing, no z-loss.
    fn default() -> Self {
        CrossEntropyOptions { ignore_index: Some(-100), label_smoothing: 0.0, z_loss: 0.0 }
    }
}

/// Cross-entropy per row. Inputs: logits `[.., n]`, targets `[..]`. Outputs: the losses `[..]` and
/// the log-sum-exps `[..]`, which the backward pass needs.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// The settings.
    pub options: CrossEntropyOptions,
}

/// The gradient of [`CrossEntropy`]. Inputs: logits, targets, log-sum-exps, the gradient by the
/// losses. Output: the gradient by the logits.
#[derive(Clone, Debug)]
pub struct CrossEntropyGrad {
    /// The settings.
    pub options: CrossEntropyOptions,
}

impl CrossEntropyOptions {
    /// What is worth printing in a drawing.
    pub(crate) fn describe(&self) -> String {
        let mut words = vec![];
        words.extend(self.ignore_index.map(|i| format!("ignore={i}")));
        words.extend((self.label_smoothing != 0.0).then(|| format!("smoothing={}", self.label_smoothing)));
        words.extend((self.z_loss != 0.0).then(|| format!("z_loss={}", self.z_loss)));
        words.join(" ")
    }
}

fn rows_fit(logits: &TensorType, rows: &TensorType) -> bool {
    logits.rank() == rows.rank() + 1 && rows.dims.iter().zip(&logits.dims).all(|(a, b)| a.extent == b.extent)
}

impl Rule for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, targets] = arity(inputs)?;
        if logits.dtype != DType::F32 || targets.dtype != DType::I32 || !rows_fit(logits, targets) {
            return Err(format!("takes logits [.., classes] and target indices [..], is given {logits} and {targets}"));
        }
        Ok(vec![targets.with_dtype(DType::F32); 2])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        if cx.grads[1].is_some() {
            return Err(NoGradient("the log-sum-exp of cross-entropy is for its backward pass alone".into()));
        }
        let inputs = [cx.inputs[0], cx.inputs[1], cx.outputs[1], cx.grad()];
        Ok(vec![Some(op1(CrossEntropyGrad { options: self.options }, &inputs)), None])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(4)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.options.describe()
    }
}

impl Rule for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "cross_entropy_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, targets, lse, g] = arity(inputs)?;
        if ![targets, lse, g].iter().all(|t| rows_fit(logits, t)) {
            return Err(format!("takes logits and three values per row, is given {logits}, {targets}, {lse} and {g}"));
        }
        Ok(vec![logits.clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of cross-entropy are not implemented".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(4)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.options.describe()
    }
}

/// Cross-entropy per row of `logits [.., classes]` against `targets [..]`.
pub fn cross_entropy(logits: Handle, targets: Handle, options: CrossEntropyOptions) -> Handle {
    opn(CrossEntropy { options }, &[logits, targets], 2)[0]
}

/// The number of targets that are not ignored, at least 1, as a real scalar.
pub fn counted(targets: Handle, ignore: Option<i32>) -> Handle {
    let ty = type_of(targets);
    let one = leaf::scalar(1.0);
    let Some(ignore) = ignore else {
        return ew::binary(ew::BinaryKind::Max, leaf::size(ty.count()), one);
    };
    let counts = ew::compare(ew::CompareKind::Ne, targets, ew::constant_like(targets, ignore as f64));
    let all: Vec<usize> = (0..ty.rank()).collect();
    let count = reduce::reduce(ew::cast(counts, DType::F32), reduce::Kind::Sum, &all);
    ew::binary(ew::BinaryKind::Max, count, one)
}

/// `max(x, 0) - x y + log(1 + exp(-|x|))`: binary cross-entropy that does not overflow.
pub fn bce_with_logits(x: Handle, y: Handle) -> Handle {
    let zero = leaf::scalar(0.0);
    let positive = ew::binary(ew::BinaryKind::Max, x, zero);
    let decay = ew::unary(ew::UnaryKind::Exp, ew::neg(ew::unary(ew::UnaryKind::Abs, x)));
    let tail = ew::unary(ew::UnaryKind::Log, ew::add(decay, leaf::scalar(1.0)));
    ew::add(ew::sub(positive, ew::mul(x, y)), tail)
}

/// `d^2 / (2 beta)` where `|d| < beta`, else `|d| - beta / 2`.
pub fn smooth_l1(difference: Handle, beta: f64) -> Handle {
    let size = ew::unary(ew::UnaryKind::Abs, difference);
    if beta == 0.0 {
        return size;
    }
    let near = ew::compare(ew::CompareKind::Lt, size, leaf::scalar(beta));
    let square = ew::scale(ew::mul(difference, difference), 0.5 / beta);
    ew::select(near, square, ew::sub(size, leaf::scalar(0.5 * beta)))
}

/// `x . y / (max(|x|, eps) max(|y|, eps))` along dimension `axis`.
pub fn cosine_similarity(x: Handle, y: Handle, axis: usize, eps: f64) -> Handle {
    let dot = |a, b| reduce::reduce(ew::mul(a, b), reduce::Kind::Sum, &[axis]);
    // The bound is taken on the square: the root has no derivative at 0.
    let length = |a| {
        let square = ew::binary(ew::BinaryKind::Max, dot(a, a), leaf::scalar(eps * eps));
        ew::unary(ew::UnaryKind::Sqrt, square)
    };
    ew::div(dot(x, y), ew::mul(length(x), length(y)))
}

/// Losses of single rows, to be joined. What the targets leave out counts as 0.
#[must_use = "losses are joined by `.mean()`, `.sum()` or read by `.each()`"]
pub struct RowLosses<S> {
    losses: Tensor<S>,
    count: Handle,
}

impl<S: Shape> RowLosses<S> {
    /// The sum divided by the number of rows that count; 0 where none does.
    pub fn mean(self) -> Tensor<()> {
        let count = self.count;
        Tensor::from_raw(ew::div(self.sum().raw(), count))
    }

    /// The sum.
    pub fn sum(self) -> Tensor<()> {
        let all: Vec<usize> = (0..S::RANK).collect();
        Tensor::from_raw(reduce::reduce(self.losses.raw(), reduce::Kind::Sum, &all))
    }

    /// One loss per row, 0 for those left out.
    pub fn each(self) -> Tensor<S> {
        self.losses
    }
}

fn mean_all<S: Shape>(x: Handle) -> Tensor<()> {
    Tensor::from_raw(reduce::mean(x, &(0..S::RANK).collect::<Vec<_>>()))
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// The mean cross-entropy in nats of these logits `[.., V]` against target indices `[..]`;
    /// targets of -100 are left out. PyTorch: `F.cross_entropy(logits, targets)` with the classes
    /// in the last dimension.
    #[inline]
    pub fn cross_entropy<V: Axis, T>(self, targets: Tensor<S::Init, T>) -> Tensor<()>
    where
        S: EndsWith<V>,
        E: Float,
        T: Indices,
    {
        self.cross_entropy_with(targets, CrossEntropyOptions::default()).mean()
    }

    /// Cross-entropy with label smoothing, z-loss or another ignored index, joined as asked for:
    /// `.mean()`, `.sum()` or `.each()`.
    #[inline]
    pub fn cross_entropy_with<V: Axis, T>(
        self,
        targets: Tensor<S::Init, T>,
        options: CrossEntropyOptions,
    ) -> RowLosses<S::Init>
    where
        S: EndsWith<V>,
        E: Float,
        T: Indices,
    {
        RowLosses {
            losses: Tensor::from_raw(cross_entropy(self.raw(), targets.raw(), options)),
            count: counted(targets.raw(), options.ignore_index),
        }
    }

    /// The mean of `(x - y)^2`. PyTorch: `F.mse_loss(x, y)`.
    #[inline]
    pub fn mse_loss<F: Float>(self, target: Tensor<S, F>) -> Tensor<()>
    where
        E: Float,
    {
        let d = ew::sub(self.raw(), target.raw());
        mean_all::<S>(ew::mul(d, d))
    }

    /// The mean of `|x - y|`. PyTorch: `F.l1_loss(x, y)`.
    #[inline]
    pub fn l1_loss<F: Float>(self, target: Tensor<S, F>) -> Tensor<()>
    where
        E: Float,
    {
        mean_all::<S>(ew::unary(ew::UnaryKind::Abs, ew::sub(self.raw(), target.raw())))
    }

    /// The mean of `d^2 / (2 beta)` where `|d| < beta`, else `|d| - beta / 2`, with `d = x - y`
    /// (Girshick 2015). PyTorch: `F.smooth_l1_loss(x, y, beta=beta)`.
    #[inline]
    pub fn smooth_l1_loss<F: Float>(self, target: Tensor<S, F>, beta: f64) -> Tensor<()>
    where
        E: Float,
    {
        mean_all::<S>(smooth_l1(ew::sub(self.raw(), target.raw()), beta))
    }

    /// The mean binary cross-entropy of these logits against probabilities `y` in 0 to 1:
    /// `max(x, 0) - x y + log(1 + exp(-|x|))`.
    /// PyTorch: `F.binary_cross_entropy_with_logits(x, y)`.
    #[inline]
    pub fn bce_with_logits_loss<F: Float>(self, target: Tensor<S, F>) -> Tensor<()>
    where
        E: Float,
    {
        mean_all::<S>(bce_with_logits(self.raw(), target.raw()))
    }

    /// The Kullback-Leibler divergence of a target distribution from this one, both given as log
    /// probabilities over the last axis: the mean over rows of `sum exp(t) (t - x)`. A target of
    /// minus infinity (probability 0) adds nothing.
    /// PyTorch: `F.kl_div(x, t, log_target=True, reduction="batchmean")` for matrices.
    #[inline]
    pub fn kl_div<V: Axis, F: Float>(self, log_target: Tensor<S, F>) -> Tensor<()>
    where
        S: EndsWith<V>,
        E: Float,
    {
        let (x, t) = (self.raw(), log_target.raw());
        let p = ew::unary(ew::UnaryKind::Exp, t);
        let nothing = ew::compare(ew::CompareKind::Eq, p, leaf::scalar(0.0));
        let zero = leaf::scalar(0.0);
        // Both factors are replaced, so that no NaN reaches the gradient.
        let difference = ew::sub(ew::select(nothing, zero, t), ew::select(nothing, zero, x));
        let each = reduce::reduce(ew::mul(p, difference), reduce::Kind::Sum, &[S::RANK - 1]);
        Tensor::from_raw(reduce::mean(each, &(0..S::RANK - 1).collect::<Vec<_>>()))
    }

    /// The cosine of the angle between the vectors along the last axis, -1 to 1; lengths below
    /// `1e-8` count as that. PyTorch: `F.cosine_similarity(x, y, dim=-1)`.
    #[inline]
    pub fn cosine_similarity<V: Axis, F: Float>(self, other: Tensor<S, F>) -> Tensor<S::Init>
    where
        S: EndsWith<V>,
        E: Float,
    {
        Tensor::from_raw(cosine_similarity(self.raw(), other.raw(), S::RANK - 1, 1e-8))
    }

    /// The mean over pairs of vectors of `1 - cos` where the pair belongs together (`label` 1) and
    /// `max(0, cos - margin)` where it does not (`label` -1).
    /// PyTorch: `F.cosine_embedding_loss(x, y, label, margin)`.
    #[inline]
    pub fn cosine_embedding_loss<V: Axis, F: Float, G: Float>(
        self,
        other: Tensor<S, F>,
        label: Tensor<S::Init, G>,
        margin: f64,
    ) -> Tensor<()>
    where
        S: EndsWith<V>,
        E: Float,
    {
        let cos = cosine_similarity(self.raw(), other.raw(), S::RANK - 1, 1e-8);
        let together = ew::compare(ew::CompareKind::Gt, label.raw(), leaf::scalar(0.0));
        let apart = ew::binary(ew::BinaryKind::Max, ew::sub(cos, leaf::scalar(margin)), leaf::scalar(0.0));
        let each = ew::select(together, ew::sub(leaf::scalar(1.0), cos), apart);
        mean_all::<S::Init>(each)
    }
}
