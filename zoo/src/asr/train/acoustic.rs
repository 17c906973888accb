//! What a family of networks brings to be trained: its loss, and what its head says.
//!
//! A batch's samples go through the [`Front`] and the network in one graph. What comes out is the same for all
//! families ([`Said`]): values for each recording and step that a search reads, how many steps count, and the loss.

use super::feed::Args;
use crate::asr::conformer::axes::{AnyConformer, ConformerAxes, Rate};
use crate::asr::conformer::model::{Conformer, Head, ModelSettings, Reduction};
use crate::asr::conformer::score::joined;
use crate::asr::conv::{AnyConv, ConvAxes, ConvClassifier, ConvCtc};
use crate::asr::front::Front;
use crate::audio::Batch;
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::ops::ctc::{CtcOptions, SequenceLosses};
use mobilis_runtime::ops::transducer::TransducerOptions;
use mobilis_runtime::ops::{elementwise as ew, reduce, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// Steps of a network's stream.
    pub Inner;
    /// What it says of a step.
    pub Width;
}

/// What a network says of a batch.
pub struct Said {
    /// Logits of classes for one step, logarithms of probabilities for CTC, frames for a transducer's joint.
    pub heard: Tensor<(Batch, Inner, Width)>,
    /// The steps of each recording that count.
    pub steps: Tensor<(Batch,), Index>,
    /// The loss.
    pub loss: Tensor<()>,
}

impl Said {
    fn new(heard: Handle, steps: Handle, loss: Tensor<()>) -> Said {
        Said { heard: Tensor::from_raw(heard), steps: Tensor::from_raw(steps), loss }
    }
}

/// What is to be made small.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// How the losses of a batch's sequences are joined.
    pub reduction: Reduction,
    /// The class that is no token.
    pub blank: usize,
    /// Of a transducer.
    pub transducer: TransducerOptions,
    /// Of a hybrid: the weight of its CTC head's loss, and how those are joined.
    pub ctc: (f64, Reduction),
}

impl Objective {
    /// What a configuration of NeMo's says, for so many tokens and these durations: `ctc_reduction`,
    /// `rnnt_reduction`, `loss`, `aux_ctc`.
    ///
    /// # Errors
    /// A loss that is not known; numbers out of range.
    pub fn nemo(config: &Config, tokens: usize, durations: Vec<usize>) -> Result<Objective, ConfigError> {
        let reduction = |config: &Config, key: &str| {
            Ok(match config.word(key)?.unwrap_or("mean_batch") {
                "mean_batch" => Reduction::MeanBatch,
                "mean_volume" => Reduction::MeanVolume,
                "mean" => Reduction::Mean,
                "sum" => Reduction::Sum,
                _ => return Err(config.wrong(key, "mean_batch, mean_volume, mean or sum")),
            })
        };
        let transducers = config.inner("joint").is_some();
        let empty = |key: &str| Config::new(format!("{} `{key}`", config.place()), serde_json::json!({}));
        let loss = config.inner("loss").unwrap_or_else(|| empty("loss"));
        let wanted = if durations.is_empty() { "rnnt" } else { "tdt" };
        let known = match loss.word("loss_name")?.unwrap_or("default") {
            "default" => true,
            "rnnt" | "warprnnt" | "warprnnt_numba" => wanted == "rnnt",
            name => name == wanted,
        };
        if transducers && !known {
            return Err(loss.wrong("loss_name", format!("{wanted}, as `durations` have it")));
        }
        let section = if wanted == "tdt" { "tdt_kwargs" } else { "warprnnt_numba_kwargs" };
        let numbers = loss.inner(section).unwrap_or_else(|| empty(section));
        let at_least = |key: &str, most: f64| match numbers.number(key, 0.0)? {
            // NeMo clamps nothing at -1.
            n if (0.0..=most).contains(&n) || (key == "clamp" && n < 0.0) => Ok(n.max(0.0)),
            _ => Err(numbers.wrong(key, format!("a number of 0 to {most}"))),
        };
        let transducer = TransducerOptions {
            blank: tokens,
            sigma: at_least("sigma", 10.0)?,
            omega: at_least("omega", 1.0)?,
            fastemit: at_least("fastemit_lambda", 1.0)?,
            clamp: at_least("clamp", f64::MAX)?,
            durations,
        };
        let ctc = match config.inner("aux_ctc") {
            None => (0.0, Reduction::MeanBatch),
            Some(section) => match section.number("ctc_loss_weight", 0.3)? {
                weight if (0.0..=1.0).contains(&weight) => (weight, reduction(&section, "ctc_reduction")?),
                _ => return Err(section.wrong("ctc_loss_weight", "a number of 0 to 1")),
            },
        };
        let reduction = reduction(config, if transducers { "rnnt_reduction" } else { "ctc_reduction" })?;
        Ok(Objective { reduction, blank: tokens, transducer, ctc })
    }

    /// The same with the mean over recordings: what a corpus is judged by.
    #[must_use]
    pub fn by_recordings(mut self) -> Objective {
        (self.reduction, self.ctc.1) = (Reduction::MeanBatch, Reduction::MeanBatch);
        self
    }

    fn options(&self) -> CtcOptions {
        CtcOptions { blank: self.blank, zero_infinity: true }
    }

    fn joined(&self, losses: SequenceLosses<Batch>) -> Tensor<()> {
        joined(losses, self.reduction)
    }
}

/// A family of networks that learn.
pub trait Acoustic: Module + Sized + 'static {
    /// Builds what it says of a batch.
    fn say(&self, front: &Front, objective: &Objective, args: Args) -> Said;
}

impl Acoustic for ConvCtc {
    fn say(&self, front: &Front, objective: &Objective, (sound, samples, labels, counts): Args) -> Said {
        let (x, lengths) = front.trace::<<AnyConv as ConvAxes>::Features>(sound, samples);
        let (_, log_probs, steps) = self.hear(x, lengths);
        let losses = log_probs.ctc_loss(labels, steps, counts, objective.options());
        Said::new(log_probs.raw(), steps.raw(), objective.joined(losses))
    }
}

impl Acoustic for ConvClassifier {
    fn say(&self, front: &Front, _: &Objective, (sound, samples, labels, counts): Args) -> Said {
        let (x, lengths) = front.trace::<<AnyConv as ConvAxes>::Features>(sound, samples);
        let logits = self.forward(x, lengths);
        // The first label of each recording, and one step of each.
        let first = slice::slice(labels.raw(), 1, Extent::constant(0), 1, Dim::fixed(1));
        let first: Tensor<(Batch,), Index> = Tensor::from_raw(reduce::reduce(first, reduce::Kind::Sum, &[1]));
        let mut dims = type_of(logits.raw()).dims;
        dims.insert(1, Dim::fixed(1));
        let ones = ew::add(ew::sub(counts.raw(), counts.raw()), ew::constant_like(counts.raw(), 1.0));
        Said::new(reduce::restore(logits.raw(), &dims, &[1]), ones, logits.cross_entropy(first))
    }
}

impl<R: Rate> Acoustic for Conformer<AnyConformer, R> {
    fn say(&self, front: &Front, objective: &Objective, (sound, samples, labels, counts): Args) -> Said {
        type Classes = <AnyConformer as ConformerAxes>::Classes;
        let (x, lengths) = front.trace::<<AnyConformer as ConformerAxes>::Mels>(sound, samples);
        let (stream, steps) = self.encoder.encode_training(x, lengths);
        match &self.head {
            Head::Bare => {
                trace::fail("an encoder alone has no loss");
                Said::new(stream.raw(), steps.raw(), Tensor::zeros())
            }
            Head::Ctc(head) => {
                let logits = head.forward(stream);
                let losses = logits.ctc_loss(labels, steps, counts, objective.options());
                let log_probs = logits.log_softmax(Classes::AXIS);
                Said::new(log_probs.raw(), steps.raw(), objective.joined(losses))
            }
            Head::Transducer(decoder, joint, ctc) => {
                let frames = joint.frames(stream);
                let predictions = joint.predictions(decoder.whole(labels));
                let losses = joint.losses(frames, predictions, (labels, counts), steps, &objective.transducer);
                let mut loss = objective.joined(losses);
                let (weight, reduction) = objective.ctc;
                if let (Some(head), true) = (ctc, weight > 0.0) {
                    let losses = head.forward(stream).ctc_loss(labels, steps, counts, objective.options());
                    let other = ew::scale(joined(losses, reduction).raw(), weight);
                    loss = Tensor::from_raw(ew::add(ew::scale(loss.raw(), 1.0 - weight), other));
                }
                Said::new(frames.raw(), steps.raw(), loss)
            }
        }
    }
}

/// The durations of a transducer; none of others.
pub(super) fn durations(settings: &ModelSettings) -> Vec<usize> {
    match &settings.head {
        crate::asr::conformer::model::HeadSettings::Transducer { durations, .. } => durations.clone(),
        _ => vec![],
    }
}
