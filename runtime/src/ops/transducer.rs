//! Transducer losses: RNN-T (Graves 2012) and TDT (Xu et al. 2023), minus the logarithm of the probability that frames
//! say a sequence of labels, over all times at which they may be said.
//!
//! A joint network scores at node `(t, u)`, before frame `t` with `u` labels said, what comes next: a token (blank among
//! them), for TDT also by how many frames to go on, of which a softmax of its own decides.
//!
//! ```text
//! RNN-T   blank (t, u) -> (t + 1, u)                     label u (t, u) -> (t, u + 1)
//! TDT     blank with duration d > 0 -> (t + d, u)        label with any d -> (t + d, u + 1)
//! loss  = -log of the sum of paths from (0, 0) whose last step is a blank to (T, U)
//! w(s)  = the part of all paths that takes step s        gx_v = g (softmax_v sum of w at the node - sum of w of v)
//! ```
//!
//! The logits of all nodes, `b t u v` values, are the largest of a training step by far. With a [`Joint`] the
//! operation makes them itself, from what the encoder and the predictor give, a few frames at a time, in the loss and once
//! more in its gradient: `logits = W act(e[t] + p[u]) + bias`.
//!
//! **Lengths.** Frames and labels beyond a sequence's lengths count for nothing and have gradient 0. A sequence with
//! no path to its end (no frames; durations that cannot meet it) has an infinite loss and no gradient.

use super::ctc::{SequenceLosses, check_batch};
use super::{Cost, GradContext, NoGradient, Rule, elementwise as ew, slice};
use crate::graph::trace::{Handle, opn, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Indices, Is};
use crate::language::elements::Lengths;
use crate::tensor::Tensor;

/// How a transducer's loss is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct TransducerOptions {
    /// The token that is no label: NeMo's is the last.
    pub blank: usize,
    /// By how many frames a step may advance, one above 0 among them, at most 16: TDT. None: RNN-T.
    pub durations: Vec<usize>,
    /// TDT: what is taken off the logarithm of every token's probability, so that long durations pay.
    pub sigma: f64,
    /// TDT: the part of the loss that is RNN-T's over the tokens alone, without sigma. NeMo tosses a coin for each batch
    /// and takes that loss with this probability; here it has this weight in every batch, and TDT's the rest. Loss and
    /// gradients are what NeMo's are on average over the coin, without the coin's noise, and a step is the same again;
    /// it takes both sums over paths, where NeMo takes one.
    pub omega: f64,
    /// FastEmit (Yu et al. 2021): how much more the gradients of labels count. The loss itself is reported without
    /// it (NeMo's is `1 + fastemit` times that).
    pub fastemit: f64,
    /// The largest size of a gradient by a logit, before that by the loss; 0 for none. NeMo: `clamp`.
    pub clamp: f64,
}

impl TransducerOptions {
    /// RNN-T.
    pub fn rnnt(blank: usize) -> Self {
        TransducerOptions { blank, durations: vec![], sigma: 0.0, omega: 0.0, fastemit: 0.0, clamp: 0.0 }
    }

    /// TDT without sigma and omega. NeMo trains with 0.02 and 0.1.
    pub fn tdt(blank: usize, durations: impl Into<Vec<usize>>) -> Self {
        TransducerOptions { durations: durations.into(), ..TransducerOptions::rnnt(blank) }
    }

    /// Values that are kept of a node for the gradient: log sums of tokens and durations, logarithms of blank, of the
    /// next label, and of each duration.
    pub fn kept(&self) -> usize {
        4 + self.durations.len()
    }
}

/// What bends a joint network's hidden values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// `max(x, 0)`
    Relu,
    /// Hyperbolic tangent.
    Tanh,
}

/// A transducer's loss per sequence. Inputs: logits `[b, t, u + 1, tokens + durations]`, or for a joint network the
/// encoder's part `[b, t, h]`, the predictor's `[b, u + 1, h]`, a weight `[tokens + durations, h]` and a bias; then
/// targets `[b, u]`, frames and labels that count `[b]`. Outputs: the losses `[b]`; what is kept of each node.
#[derive(Clone, Debug)]
pub struct Transducer {
    /// The settings.
    pub options: TransducerOptions,
    /// The joint network, if it is part of the operation.
    pub joint: Option<Joint>,
}

/// The gradients of [`Transducer`] by its real inputs: its inputs, what was kept, and the gradient by the losses.
#[derive(Clone, Debug)]
pub struct TransducerGrad(pub Transducer);

impl Transducer {
    /// The number of real inputs.
    pub fn sources(&self) -> usize {
        if self.joint.is_some() { 4 } else { 1 }
    }

    /// Batch, time, nodes of a frame, logits of a node.
    fn check(&self, inputs: &[&TensorType]) -> Result<[Dim; 4], String> {
        let n = self.sources();
        let [targets, frames, labels] = inputs
            .get(n..n + 3)
            .and_then(|i| i.try_into().ok())
            .ok_or_else(|| format!("takes {} inputs, is given {}", n + 3, inputs.len()))?;
        check_batch(inputs[0], [targets, frames, labels])?;
        let dim = |i: usize, at: usize| inputs[i].dims.get(at).cloned();
        let of = |dims: &[&Dim]| TensorType::new(dims.iter().map(|d| (*d).clone()).collect(), DType::F32);
        let dims = match (self.joint, inputs[0].rank()) {
            (None, 4) => [0, 1, 2, 3].map(|at| dim(0, at)),
            (Some(_), 3) => [dim(0, 0), dim(0, 1), dim(1, 1), dim(2, 0)],
            _ => [const { None }; 4],
        };
        let [Some(b), Some(t), Some(p), Some(v)] = dims else {
            let wanted = if n == 4 { "[b, t, h], [b, u + 1, h] and [v, h]" } else { "logits [b, t, u + 1, v]" };
            return Err(format!("takes {wanted}, is given {}", inputs[0]));
        };
        if n == 4 {
            let h = &inputs[0].dims[2];
            let wanted = [of(&[&b, &t, h]), of(&[&b, &p, h]), of(&[&v, h]), of(&[&v])];
            if let Some((found, wanted)) =
                inputs.iter().zip(&wanted).find(|(a, b)| !a.same_extents(b) || a.dtype != DType::F32)
            {
                return Err(format!("joins {wanted}, is given {found}"));
            }
        }
        let constant = |e: &Extent| e.as_constant().map(|n| n as usize);
        if let (Some(u), Some(p)) = (constant(&targets.dims[1].extent), constant(&p.extent))
            && p != u + 1
        {
            return Err(format!("takes {} nodes of a frame for {u} labels, is given {p}", u + 1));
        }
        let o = &self.options;
        let least = o.blank + 1 + o.durations.len();
        if constant(&v.extent).is_some_and(|v| v < least) {
            return Err(format!(
                "has blank {} and {} durations, which {v} logits do not hold",
                o.blank,
                o.durations.len()
            ));
        }
        if o.durations.len() > 16 || (!o.durations.is_empty() && o.durations.iter().all(|d| *d == 0)) {
            return Err(format!("takes up to 16 durations, one above 0 among them, is given {:?}", o.durations));
        }
        Ok([b, t, p, v])
    }

    fn cost_of(&self, products: u64, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let Ok([b, t, p, v]) = self.check(inputs) else { return Cost::free() };
        let logits = Extent::product([&b.extent, &t.extent, &p.extent, &v.extent]);
        let each = match self.joint {
            Some(_) => Extent::add(
                Extent::constant(4),
                Extent::mul(inputs[0].dims[2].extent.clone(), Extent::constant(2 * products)),
            ),
            None => Extent::constant(4),
        };
        Cost::streaming(Extent::mul(logits, each), inputs, outputs)
    }
}

impl Rule for Transducer {
    fn name(&self) -> &'static str {
        "transducer"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [b, t, p, _] = self.check(inputs)?;
        let kept = Dim::fixed(self.options.kept() as u64);
        Ok([vec![b.clone()], vec![b, t, p, kept]].map(|dims| TensorType::new(dims, DType::F32)).into())
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        if cx.grads[1].is_some() {
            return Err(NoGradient("what a transducer's loss keeps of its nodes is for its gradient alone".into()));
        }
        let inputs: Vec<Handle> = cx.inputs.iter().copied().chain([cx.outputs[1], cx.grad()]).collect();
        let out = opn(TransducerGrad(self.clone()), &inputs, self.sources());
        Ok(out.into_iter().map(Some).chain([None; 3]).collect())
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        self.cost_of(1, inputs, outputs)
    }
    fn attributes(&self) -> String {
        let durations = if self.options.durations.is_empty() {
            String::new()
        } else {
            format!(" durations={:?}", self.options.durations)
        };
        let joint = self.joint.map_or(String::new(), |j| format!(" joint={j:?}").to_lowercase());
        format!("blank={}{durations}{joint}", self.options.blank)
    }
}

impl Rule for TransducerGrad {
    fn name(&self) -> &'static str {
        "transducer_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let n = self.0.sources();
        if inputs.len() != n + 5 {
            return Err(format!("takes {} inputs, is given {}", n + 5, inputs.len()));
        }
        self.0.check(&inputs[..n + 3])?;
        Ok(inputs[..n].iter().map(|t| (*t).clone()).collect())
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of a transducer's loss are not implemented".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        self.0.cost_of(3, &inputs[..inputs.len().saturating_sub(2)], outputs)
    }
    fn attributes(&self) -> String {
        self.0.attributes()
    }
}

/// A transducer's loss per sequence of its real inputs ([`Transducer`] says which) against `targets [b, u]`, of which
/// `frames [b]` and `labels [b]` count.
pub fn transducer(sources: &[Handle], rest: [Handle; 3], joint: Option<Joint>, options: &TransducerOptions) -> Handle {
    let of = |sources: &[Handle], options: TransducerOptions| {
        let inputs: Vec<Handle> = sources.iter().copied().chain(rest).collect();
        opn(Transducer { options, joint }, &inputs, 2)[0]
    };
    let whole = of(sources, options.clone());
    if options.omega == 0.0 || options.durations.is_empty() {
        return whole;
    }
    // The tokens alone: the first values along the dimension of the logits, of the weight, of the bias.
    let mut tokens = sources.to_vec();
    for (i, at) in if joint.is_some() { vec![(2, 0), (3, 0)] } else { vec![(0, 3)] } {
        let Some(dim) = tokens.get(i).and_then(|x| type_of(*x).dims.get(at).cloned()) else { return whole };
        let count = Extent::sub(dim.extent, Extent::constant(options.durations.len() as u64));
        tokens[i] = slice::slice(tokens[i], at, Extent::constant(0), 1, Dim::anonymous(count));
    }
    let plain = of(&tokens, TransducerOptions { durations: vec![], sigma: 0.0, omega: 0.0, ..options.clone() });
    ew::add(ew::scale(whole, 1.0 - options.omega), ew::scale(plain, options.omega))
}

impl<B: Axis, T: Axis, P: Axis, V: Axis, E: Float> Tensor<(B, T, P, V), E> {
    /// The RNN-T or TDT loss of each sequence of these logits of a joint network, `P` one longer than the labels `U`.
    /// PyTorch: `torchaudio.functional.rnnt_loss(x, targets, frames, labels, blank)`; NeMo: `RNNTLoss`.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::ops::transducer::TransducerOptions;
    /// use mobilis::prelude::*;
    /// axes! { Batch; Frames; Text; Said; Classes = 29; }
    ///
    /// fn loss(
    ///     logits: Tensor![Batch, Frames, Said, Classes],
    ///     text: Tensor![Batch, Text; TokenId],
    ///     frames: Tensor![Batch; Lengths<Frames>],
    ///     letters: Tensor![Batch; Lengths<Text>],
    /// ) -> Tensor![] {
    ///     logits.transducer_loss(text, frames, letters, &TransducerOptions::rnnt(28)).mean_batch()
    /// }
    /// ```
    #[inline]
    pub fn transducer_loss<U: Axis, I: Indices, L: Is<Lengths<T>>, M: Is<Lengths<U>>>(
        self,
        targets: Tensor<(B, U), I>,
        frames: Tensor<(B,), L>,
        labels: Tensor<(B,), M>,
        options: &TransducerOptions,
    ) -> SequenceLosses<B> {
        let rest = [targets.raw(), frames.raw(), labels.raw()];
        SequenceLosses::new(transducer(&[self.raw()], rest, None, options), labels.raw())
    }
}

impl<B: Axis, T: Axis, H: Axis, E: Float> Tensor<(B, T, H), E> {
    /// The RNN-T or TDT loss of each sequence, this being the encoder's part of the joint network: its logits
    /// `weight act(self + predictor) + bias` are never in memory as a whole. `P` is one longer than the labels `U`.
    /// NeMo: `RNNTJoint` with `fuse_loss_wer`, without dropout.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::ops::transducer::{Joint, TransducerOptions};
    /// use mobilis::prelude::*;
    /// axes! { Batch; Frames; Text; Said; Hidden = 16; Classes = 34; }
    ///
    /// fn loss(
    ///     encoded: Tensor![Batch, Frames, Hidden],
    ///     said: Tensor![Batch, Said, Hidden],
    ///     weight: Tensor![Classes, Hidden],
    ///     bias: Tensor![Classes],
    ///     text: Tensor![Batch, Text; TokenId],
    ///     frames: Tensor![Batch; Lengths<Frames>],
    ///     letters: Tensor![Batch; Lengths<Text>],
    /// ) -> Tensor![] {
    ///     let options = TransducerOptions::tdt(28, [0, 1, 2, 3, 4]);
    ///     encoded.joint_loss(said, (weight, bias), Joint::Relu, text, frames, letters, &options).mean_batch()
    /// }
    /// ```
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn joint_loss<P: Axis, V: Axis, U: Axis, F: Float, I: Indices, L: Is<Lengths<T>>, M: Is<Lengths<U>>>(
        self,
        predictor: Tensor<(B, P, H), F>,
        (weight, bias): (Tensor<(V, H)>, Tensor<(V,)>),
        joint: Joint,
        targets: Tensor<(B, U), I>,
        frames: Tensor<(B,), L>,
        labels: Tensor<(B,), M>,
        options: &TransducerOptions,
    ) -> SequenceLosses<B> {
        let sources = [self.raw(), predictor.raw(), weight.raw(), bias.raw()];
        let rest = [targets.raw(), frames.raw(), labels.raw()];
        SequenceLosses::new(transducer(&sources, rest, Some(joint), options), labels.raw())
    }
}
