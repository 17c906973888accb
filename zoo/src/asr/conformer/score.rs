//! Losses of targets, and gradients: for training and for holding a model against a reference.

use super::axes::{ConformerAxes, Rate, Tokens};
use super::model::{Conformer, Head, HeadSettings, ModelSettings, Reduction};
use super::network::{A, FeatureTensor, Features, Lens, Network};
use crate::audio::{Batch, Frames};
use crate::llm::family::decl;
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{Dim, VarKind};
use mobilis_runtime::ops::ctc::{CtcOptions, SequenceLosses};
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::transducer::TransducerOptions;
use mobilis_runtime::prelude::*;
use mobilis_runtime::transforms::grad::gradients;

axes! {
    /// All values of a result.
    pub All;
}

/// Labels of a batch, padded to one length.
pub type Labels = Tensor<(Batch, Tokens), Index>;
/// How many of them count.
pub type LabelCounts = Tensor<(Batch,), Lengths<Tokens>>;
type Inputs = (FeatureTensor, Lens, Labels, LabelCounts);

/// A program for values of many shapes, and their names: `log_probs` or `joint` with what leads to it,
/// `loss_per_sample`, `loss`, and `grad.` of each parameter.
pub struct Scorer {
    program: Program<Inputs, Vec<Tensor<(All,)>>>,
    names: Vec<String>,
}

/// Targets of a batch.
#[derive(Clone, Debug)]
pub struct Targets {
    /// `[Batch, labels]`
    pub labels: Vec<i32>,
    /// How many count of each.
    pub lengths: Vec<usize>,
}

/// The losses of a batch as one.
pub fn joined(losses: SequenceLosses<Batch>, reduction: Reduction) -> Tensor<()> {
    match reduction {
        Reduction::MeanBatch => losses.mean_batch(),
        Reduction::Mean => losses.mean(),
        Reduction::MeanVolume => losses.mean_volume(),
        Reduction::Sum => losses.sum(),
    }
}

fn flat(x: Handle) -> Tensor<(All,)> {
    let count = type_of(x).count();
    Tensor::from_raw(movement::reshape(x, vec![Dim::anonymous(count)]))
}

/// What a model says of targets.
pub(super) fn scorer<R: Rate>(
    model: &Model<Conformer<A, R>>,
    mode: Mode,
    settings: &ModelSettings,
) -> Result<Scorer, ProgramError> {
    let declared: Vec<_> = model.catalog().vars().iter().filter(|d| d.kind == VarKind::Param).collect();
    let mut names = vec![];
    let graph = model.trace(mode, |m, (x, lengths, labels, counts): Inputs| {
        let mut all = vec![];
        let mut say = |name: &str, x: Handle| {
            names.push(name.to_string());
            all.push(flat(x));
        };
        let losses = said(m, (x, lengths, labels, counts), settings, &mut say);
        let parameters: Vec<_> = declared.iter().map(|d| trace::variable(|| decl(d), d.id)).collect();
        say("loss_per_sample", losses().each().raw());
        let loss = joined(losses(), settings.reduction);
        say("loss", loss.raw());
        for (g, d) in gradients(loss.raw(), &parameters).into_iter().zip(&declared) {
            say(&format!("grad.{}", d.name()), g);
        }
        all
    })?;
    Ok(Scorer { program: Program::new(model.executable(graph)), names })
}

/// The losses of a batch, as often as they are asked for.
type Losses = Box<dyn Fn() -> SequenceLosses<Batch>>;

/// What the head says, shown under its names, and the losses.
fn said<R: Rate>(
    m: &Conformer<A, R>,
    (x, lengths, labels, counts): Inputs,
    settings: &ModelSettings,
    say: &mut dyn FnMut(&str, Handle),
) -> Losses {
    let (stream, steps) = m.encoder.encode_noting(x, lengths, m.encoder.contexts[0], None);
    type Classes = <A as ConformerAxes>::Classes;
    match &m.head {
        Head::Bare => {
            trace::fail("an encoder alone has no losses");
            let options = CtcOptions { blank: 0, zero_infinity: true };
            Box::new(move || stream.ctc_loss(labels, steps, counts, options))
        }
        Head::Ctc(head) => {
            let logits = head.forward(stream);
            say("logits", logits.raw());
            say("log_probs", logits.log_softmax(Classes::AXIS).raw());
            let options = CtcOptions { blank: settings.blank, zero_infinity: true };
            Box::new(move || logits.ctc_loss(labels, steps, counts, options))
        }
        Head::Transducer(decoder, joint, _) => {
            let predicted = decoder.whole(labels);
            say("decoder", predicted.raw());
            let predictions = joint.predictions(predicted);
            say("predictions", predictions.raw());
            let logits = joint.all(joint.frames(stream), predictions);
            say("joint", logits.raw());
            let options = match &settings.head {
                HeadSettings::Transducer { durations, .. } if !durations.is_empty() => {
                    TransducerOptions::tdt(settings.blank, durations.clone())
                }
                _ => TransducerOptions::rnnt(settings.blank),
            };
            Box::new(move || logits.transducer_loss(labels, steps, counts, &options))
        }
    }
}

impl Scorer {
    /// All values, under their names.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn run(&self, features: &Features, targets: &Targets) -> Result<Vec<(&str, Vec<f32>)>, ProgramError> {
        let batch = features.lengths.len();
        let lens = |n: &[usize]| n.iter().map(|n| *n as i32).collect::<Vec<_>>();
        let x: Array<(Batch, Frames, <A as ConformerAxes>::Mels), MelSpectrogram> =
            Array::from_parts(&features.values.sizes, features.values.data.clone());
        let frames: Array<(Batch,), Lengths<Frames>> = Array::from_parts(&[batch], lens(&features.lengths));
        let longest = targets.labels.len().checked_div(batch).unwrap_or(0);
        let labels: Array<(Batch, Tokens), Index> = Array::from_parts(&[batch, longest], targets.labels.clone());
        let counts: Array<(Batch,), Lengths<Tokens>> = Array::from_parts(&[batch], lens(&targets.lengths));
        let found = self.program.run((x, frames, labels, counts))?;
        Ok(self.names.iter().map(String::as_str).zip(found.into_iter().map(Array::into_vec)).collect())
    }
}

impl Network {
    /// What the model says of targets, traced for training (statistics of the batch, which the running ones
    /// then follow) or not.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn scorer(&self, training: bool) -> Result<Scorer, ProgramError> {
        let mode = if training { Mode::Train } else { Mode::Eval };
        self.inner.scorer(mode, &self.settings)
    }

    /// The values of a parameter or buffer.
    ///
    /// # Errors
    /// No such variable.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.inner.values(name)
    }
}
