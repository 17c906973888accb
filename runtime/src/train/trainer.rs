//! The loop around a training step: how long, at which rate, what to show, when to evaluate.

use super::run::{StepReport, TrainError, TrainStep};
use crate::program::{Arguments, Feed};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An error of a function that the user gives.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    Steps(u64),
    Time(Duration),
}

/// Where training is, after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// How many updates have been made in all.
    pub step: u64,
    /// How much is done, 0 to 1.
    pub fraction: f64,
    /// The loss of the step, a mean over its micro-batches.
    pub loss: f64,
    /// The loss averaged over about the last 20 steps.
    pub average: f64,
    /// The norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Since training began.
    pub elapsed: Duration,
    /// Until it ends, as far as can be told.
    pub remaining: Duration,
    /// The result of an evaluation after this step.
    pub evaluation: Option<f64>,
}

/// What training gives.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The loss of every step.
    pub losses: Vec<f64>,
    /// Steps and the results of evaluations after them.
    pub evaluations: Vec<(u64, f64)>,
    /// Steps that were left out because their loss or gradients were not finite, and why.
    pub skipped: Vec<(u64, String)>,
    /// How long it took.
    pub elapsed: Duration,
}

impl History {
    /// The mean loss of the last `steps` steps; NaN for none.
    pub fn recent(&self, steps: usize) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(steps)..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

/// A function called every so many steps.
struct Hook<'a> {
    every: u64,
    call: Box<dyn FnMut(u64) -> Result<f64, HookError> + 'a>,
}

/// Runs a training step for a number of steps or a length of time.
///
/// ```no_run
/// # use mobilis_runtime::{prelude::*, train::*};
/// # extern crate mobilis_runtime as mobilis;
/// # axes! { pub Batch; }
/// # fn demo(mut step: TrainStep<Tensor![Batch]>, batches: Vec<Array![Batch]>) -> Result<(), TrainError> {
/// let history = Trainer::new(&mut step)
///     .steps(1000)
///     .progress(|p| println!("{} {:.3}", p.step, p.average))
///     .run(|index| &batches[index as usize % batches.len()])?;
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a, I> {
    step: &'a mut TrainStep<I>,
    length: Length,
    progress: Option<Box<dyn FnMut(&Progress) + 'a>>,
    evaluate: Option<Hook<'a>>,
    save: Option<(u64, PathBuf)>,
    skips: u32,
}

impl<'a, I: Arguments> Trainer<'a, I> {
    /// Trains with `step`, for as many steps as its schedule spans, or 1000.
    pub fn new(step: &'a mut TrainStep<I>) -> Self {
        let length = Length::Steps(step.options().schedule.total().unwrap_or(1000));
        Trainer { step, length, progress: None, evaluate: None, save: None, skips: 0 }
    }

    /// Until `total` updates have been made in all: a step that was resumed from a checkpoint
    /// makes the rest of them.
    #[must_use]
    pub fn steps(mut self, total: u64) -> Self {
        self.length = Length::Steps(total);
        self
    }

    /// For a length of time from now, evaluations included. The schedule follows the clock: its
    /// end is the end of this time.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.length = Length::Time(time);
        self
    }

    /// Calls `show` after every step.
    #[must_use]
    pub fn progress(mut self, show: impl FnMut(&Progress) + 'a) -> Self {
        self.progress = Some(Box::new(show));
        self
    }

    /// Calls `evaluate` after every `every` steps and at the end; what it gives is kept and shown.
    #[must_use]
    pub fn evaluate(mut self, every: u64, evaluate: impl FnMut(u64) -> Result<f64, HookError> + 'a) -> Self {
        self.evaluate = Some(Hook { every, call: Box::new(evaluate) });
        self
    }

    /// Writes a training checkpoint to `path` after every `every` steps and at the end, in place
    /// of the last one: see [`TrainStep::save`].
    #[must_use]
    pub fn save(mut self, every: u64, path: impl Into<PathBuf>) -> Self {
        self.save = Some((every, path.into()));
        self
    }

    /// Goes on after up to `batches` batches in a row whose loss or gradients are not finite;
    /// stops at the first one unless set.
    #[must_use]
    pub fn skip_non_finite(mut self, batches: u32) -> Self {
        self.skips = batches;
        self
    }

    /// Trains. `batch` gives the batches, numbered from 0 over the whole life of the step and its
    /// checkpoints, so that a resumed run goes on where it stopped; with accumulation, one is a
    /// micro-batch.
    ///
    /// # Errors
    /// Those of [`TrainStep::run`], and of the functions given.
    pub fn run<B: Feed<I>>(mut self, mut batch: impl FnMut(u64) -> B) -> Result<History, TrainError> {
        let start = Instant::now();
        let first = self.step.steps();
        let mut history = History { losses: vec![], evaluations: vec![], skipped: vec![], elapsed: Duration::ZERO };
        let (mut average, mut skipped) = (None, 0);
        while self.fraction(first, start) < 1.0 {
            let factor = match self.length {
                Length::Steps(_) => self.step.options().schedule.factor(self.step.steps()),
                Length::Time(_) => self.step.options().schedule.at(self.fraction(first, start)),
            };
            let (report, loss) = match self.update(factor, &mut batch) {
                Ok(done) => done,
                Err(error @ TrainError::NonFinite { .. }) if skipped < self.skips => {
                    skipped += 1;
                    history.skipped.push((self.step.steps() + 1, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            skipped = 0;
            history.losses.push(loss);
            let mean = average.map_or(loss, |old: f64| old + (loss - old) / 20.0);
            average = Some(mean);
            let fraction = self.fraction(first, start);
            let evaluation = due(&mut self.evaluate, report.step, fraction >= 1.0)?;
            history.evaluations.extend(evaluation.map(|value| (report.step, value)));
            if let Some((every, path)) = &self.save
                && is_due(*every, report.step, fraction >= 1.0)
            {
                self.step.save(path)?;
            }
            let elapsed = start.elapsed();
            let remaining = self.remaining(first, elapsed);
            if let Some(show) = &mut self.progress {
                show(&Progress {
                    step: report.step,
                    fraction,
                    loss,
                    average: mean,
                    grad_norm: report.grad_norm,
                    learning_rate: report.learning_rate,
                    elapsed,
                    remaining,
                    evaluation,
                });
            }
        }
        history.elapsed = start.elapsed();
        Ok(history)
    }

    /// One update: as many micro-batches as it takes. Gives its report and mean loss.
    fn update<B: Feed<I>>(
        &mut self,
        factor: f64,
        batch: &mut impl FnMut(u64) -> B,
    ) -> Result<(StepReport, f64), TrainError> {
        let mut losses = vec![];
        loop {
            let report = self.step.run_at(factor, batch(self.step.batches()))?;
            losses.push(report.loss);
            if report.updated {
                return Ok((report, losses.iter().sum::<f64>() / losses.len() as f64));
            }
        }
    }

    fn fraction(&self, first: u64, start: Instant) -> f64 {
        match self.length {
            Length::Steps(total) => {
                let (done, all) = (self.step.steps().saturating_sub(first), total.saturating_sub(first));
                if all == 0 { 1.0 } else { done as f64 / all as f64 }
            }
            Length::Time(time) if time.is_zero() => 1.0,
            Length::Time(time) => (start.elapsed().as_secs_f64() / time.as_secs_f64()).min(1.0),
        }
    }

    fn remaining(&self, first: u64, elapsed: Duration) -> Duration {
        match self.length {
            Length::Steps(total) => {
                let done = (self.step.steps() - first).max(1) as f64;
                elapsed.mul_f64(total.saturating_sub(self.step.steps()) as f64 / done)
            }
            Length::Time(time) => time.saturating_sub(elapsed),
        }
    }
}

/// Whether what happens every so many steps and at the end happens now.
fn is_due(every: u64, step: u64, end: bool) -> bool {
    end || (every > 0 && step.is_multiple_of(every))
}

/// Calls a hook where it is time.
fn due(hook: &mut Option<Hook>, step: u64, end: bool) -> Result<Option<f64>, TrainError> {
    match hook {
        Some(hook) if is_due(hook.every, step, end) => {
            (hook.call)(step).map(Some).map_err(|source| TrainError::Hook { place: "the evaluation", source })
        }
        _ => Ok(None),
    }
}
