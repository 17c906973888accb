//! The loop: steps, validation, checkpoints, notes.
//!
//! What a step computes depends on the parameters, the optimizer's state, the counter that random numbers
//! are drawn by, and the batch. The first three are in `last.safetensors`, written whole or not at all; the
//! batch is a function of the seed and of how many were used, which is there too. So a run that was
//! killed loses what it did since that file was written and nothing else, and does it again alike.

use super::TrainingError;
use super::feed::{Args, Arrays, Feed};
use super::folder::Folder;
use super::settings::{Experiment, Trainer};
use super::tokens::Vocabulary;
use crate::audio::features::Features;
use mobilis_runtime::train::{Optimizer, Schedule, TrainError, TrainOptions, TrainStep};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run goes on from.
pub(super) const LAST: &str = "last.safetensors";

/// How well a corpus was heard: names and values, the one that counts first.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `wer`, `accuracy`, `loss`, ..
    pub values: Vec<(&'static str, f64)>,
    /// Whether the first one is better when it is greater.
    pub greater: bool,
}

impl Scores {
    pub(super) fn first(&self) -> f64 {
        self.values.first().map_or(f64::NAN, |v| v.1)
    }
}

/// A network that can be trained, its type gone.
pub trait Learner {
    /// Compiles its training step.
    ///
    /// # Errors
    /// What cannot be differentiated, settings out of range.
    fn train_step(
        &self,
        optimizer: Box<dyn Optimizer>,
        options: TrainOptions,
    ) -> Result<TrainStep<Args>, TrainingError>;

    /// What computes its features.
    fn features(&self) -> &Features;

    /// What it tells apart.
    fn tokens(&self) -> &Vocabulary;

    /// How many values it learns.
    fn parameter_count(&self) -> usize;

    /// How well the network hears a corpus, as it is used: without what only training does.
    ///
    /// # Errors
    /// Recordings that cannot be read; what the network cannot take.
    fn score(&self, feed: &Arc<Feed>) -> Result<Scores, TrainingError>;

    /// Writes the model to a file at `path` with an ending of its own choice; gives where.
    ///
    /// # Errors
    /// Those of the system.
    fn save(&self, path: &Path) -> Result<PathBuf, TrainingError>;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// It begins, or goes on after so many steps.
    Begin {
        /// Updates made before.
        step: u64,
        /// Updates to be made in all.
        total: u64,
        /// Batches of an epoch.
        batches_per_epoch: u64,
        /// What else should be known: the size of the network, where it starts from, how it computes, what of the
        /// corpora is left out.
        about: Vec<String>,
    },
    /// An update.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The epoch of its last batch, from 0.
        epoch: u64,
        /// The mean loss of its batches.
        loss: f64,
        /// The norm of the gradients before clipping.
        grad_norm: f64,
        /// The learning rate.
        rate: f64,
        /// Since the run began.
        elapsed: Duration,
    },
    /// A batch whose loss or gradients are not finite: it was left out.
    LeftOut {
        /// The update that it was for.
        step: u64,
        /// What is not finite, and where.
        fault: String,
    },
    /// The validation corpus was heard.
    Validation {
        /// After so many updates.
        step: u64,
        /// How well.
        scores: Scores,
        /// Whether never better.
        best: bool,
    },
}

impl Note {
    /// As a line of a log.
    pub fn object(&self) -> Value {
        match self {
            Note::Begin { step, total, batches_per_epoch, about } => json!({
                "event": "begin", "step": step, "total": total, "batches_per_epoch": batches_per_epoch, "about": about,
            }),
            Note::Step { step, epoch, loss, grad_norm, rate, elapsed } => json!({
                "event": "step", "step": step, "epoch": epoch, "loss": loss, "grad_norm": grad_norm,
                "learning_rate": rate, "seconds": elapsed.as_secs_f64(),
            }),
            Note::LeftOut { step, fault } => json!({"event": "left_out", "step": step, "fault": fault}),
            Note::Validation { step, scores, best } => {
                let mut line = Map::new();
                line.insert("event".into(), "validation".into());
                line.insert("step".into(), (*step).into());
                line.extend(scores.values.iter().map(|(name, value)| (format!("val_{name}"), (*value).into())));
                line.insert("best".into(), (*best).into());
                Value::Object(line)
            }
        }
    }
}

/// Everything that a run needs beside its learner.
pub struct Session {
    /// How long.
    pub trainer: Trainer,
    /// Where to.
    pub experiment: Experiment,
    /// What it learns from.
    pub train: Arc<Feed>,
    /// What it is judged by.
    pub validation: Option<Arc<Feed>>,
    /// How it learns.
    pub optimizer: Box<dyn Optimizer>,
    /// At which rate.
    pub schedule: Schedule,
    /// The complete recipe.
    pub recipe: Value,
    /// What is known of it already, for the first [`Note`].
    pub notes: Vec<String>,
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Updates made in all.
    pub steps: u64,
    /// Whether all that the recipe asks for is done: if not, the time was up.
    pub finished: bool,
    /// The losses of this session's updates.
    pub losses: Vec<f64>,
    /// The scores of the last validation.
    pub scores: Option<Scores>,
    /// The best first score, and after how many updates.
    pub best: Option<(f64, u64)>,
    /// The model that scored best, or the last one where nothing was validated.
    pub model: Option<PathBuf>,
    /// How long this session took.
    pub elapsed: Duration,
}

/// Trains, or goes on training. `watch` is told of everything that happens, and may end the run: it stops
/// after the update for which `watch` gives false, and can be gone on with.
///
/// # Errors
/// Faulty data or recordings, a loss that stays not finite, a folder that cannot be written or holds
/// another run.
pub fn run(
    learner: &dyn Learner,
    session: Session,
    watch: &mut dyn FnMut(&Note) -> bool,
) -> Result<Outcome, TrainingError> {
    let start = Instant::now();
    let Session { trainer, experiment, train, validation, optimizer, schedule, recipe, notes } = session;
    let epoch = train.batches_per_epoch();
    let total = trainer.total(epoch);
    let validate = trainer.validate.steps(epoch.div_ceil(u64::from(trainer.accumulate)));
    let mut options = TrainOptions::default().schedule(schedule).accumulate(trainer.accumulate);
    (options.clip, options.average) = (trainer.clip, experiment.average);
    options.precision = trainer.precision.clone();
    let mut step = learner.train_step(optimizer, options)?;
    let mut about = vec![format!("{} parameters", learner.parameter_count())];
    if !trainer.precision.is_single() {
        about.push(computed(&step));
    }
    about.extend(notes);

    let mut folder = Folder::open(&experiment, &recipe)?;
    if folder.last.exists() {
        step.resume(&folder.last).map_err(TrainError::from)?;
    }
    let mut tell = |note: Note, folder: &mut Folder| -> Result<bool, TrainingError> {
        folder.note(&note, trainer.log_every)?;
        Ok(watch(&note))
    };
    tell(Note::Begin { step: step.steps(), total, batches_per_epoch: epoch, about }, &mut folder)?;

    let mut outcome = Outcome {
        steps: step.steps(),
        finished: false,
        losses: vec![],
        scores: None,
        best: folder.best,
        model: None,
        elapsed: Duration::ZERO,
    };
    let mut batches = train.from(step.batches());
    let (mut sum, mut count, mut skipped) = (0.0, 0u32, 0);
    let mut going = true;
    while going && step.steps() < total {
        let Some(batch) = batches.next() else { break };
        let (epoch, batch): (u64, Arrays) = batch?;
        let report = match step.run(batch.feed()) {
            Ok(report) => report,
            Err(error @ TrainError::NonFinite { .. }) if skipped < trainer.skip_non_finite => {
                skipped += 1;
                tell(Note::LeftOut { step: step.steps() + 1, fault: error.to_string() }, &mut folder)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        (sum, count, skipped) = (sum + report.loss, count + 1, 0);
        if !report.updated {
            continue;
        }
        let loss = sum / f64::from(count);
        (sum, count) = (0.0, 0);
        outcome.losses.push(loss);
        let note = Note::Step {
            step: report.step,
            epoch,
            loss,
            grad_norm: report.grad_norm,
            rate: report.learning_rate,
            elapsed: start.elapsed(),
        };
        going &= tell(note, &mut folder)?;
        going &= trainer.max_time.is_none_or(|most| start.elapsed() < most);
        let end = !going || report.step == total;
        let saves = end || report.step.is_multiple_of(trainer.save_every);
        if let Some(feed) = &validation
            && (report.step.is_multiple_of(validate) || report.step == total)
        {
            // What is judged and kept are the averages, where there are any.
            let averaged = step.swap_averages();
            let scores = experiment.kept.watched(learner.score(feed)?);
            let best = folder.keep(learner, &scores, report.step, experiment.kept.top)?;
            if averaged {
                step.swap_averages();
            }
            going &= tell(Note::Validation { step: report.step, scores: scores.clone(), best }, &mut folder)?;
            (outcome.scores, outcome.best) = (Some(scores), folder.best);
        }
        if saves {
            step.save(&folder.last)?;
            if experiment.kept.always {
                let averaged = step.swap_averages();
                learner.save(&folder.path.join("last"))?;
                if averaged {
                    step.swap_averages();
                }
            }
        }
    }
    // Also what the last update before a stop has given.
    step.save(&folder.last)?;
    step.swap_averages();
    let last = learner.save(&folder.path.join("last"))?;
    outcome.steps = step.steps();
    outcome.finished = step.steps() >= total;
    outcome.model = Some(folder.best_model().unwrap_or(last));
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// How many products are computed from which numbers: `12 products of bf16 x bf16, 2 of f32 x f32`.
fn computed(step: &TrainStep<Args>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for product in &step.precision_report().gemms {
        let [a, b] = product.operands;
        *counts.entry(format!("{a} x {b}")).or_default() += 1;
    }
    let told: Vec<String> = counts.into_iter().map(|(numbers, count)| format!("{count} of {numbers}")).collect();
    format!("products in a step: {}", told.join(", "))
}
