//! Training steps that run: the typed shell over [`build_step`]'s graphs.

use super::checkpoint::{Kept, ResumeError};
use super::optimizer::Optimizer;
use super::step::{BuildError, TrainOptions, build_step};
use crate::checkpoint::CheckpointError;
use crate::devices::cpu::Out;
use crate::graph::VarId;
use crate::graph::trace::Mode;
use crate::language::element::Float;
use crate::module::Module;
use crate::module::model::Model;
use crate::module::store::Store;
use crate::program::host::{HostRef, HostSlice};
use crate::program::{Arguments, Executable, Feed, NonFinite, ProgramError, Weights};
use crate::tensor::Tensor;
use crate::transforms::precision::PrecisionReport;
use std::marker::PhantomData;

/// Why training stops.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The step could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The step could not be compiled or run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A batch gave a loss or gradients that are not finite. Nothing was updated: training may
    /// go on with another batch.
    #[error("step {step}: the loss is {loss}, the norm of its gradients {grad_norm}; {}", cause(.first))]
    NonFinite {
        /// The step that was tried, from 1.
        step: u64,
        /// The loss.
        loss: f64,
        /// The norm of the gradients.
        grad_norm: f64,
        /// The first operation that gave such a value although what it was given was finite.
        first: Option<NonFinite>,
    },
    /// A training checkpoint could not be written.
    #[error(transparent)]
    Save(#[from] CheckpointError),
    /// A training checkpoint could not be read.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A function given to the trainer failed.
    #[error("{place} failed: {source}")]
    Hook {
        /// Which one.
        place: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn cause(first: &Option<NonFinite>) -> String {
    match first {
        Some(found) => format!("the first such value: {found}"),
        None => "every value is finite on its own, their sum is not".into(),
    }
}

/// What one run of a step gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// How many updates have been made, this one included.
    pub step: u64,
    /// Whether this run made an update. One that did not has added its gradients to those of others,
    /// or, where the loss is [scaled](crate::precision::LossScale), was left out because gradients
    /// were not finite with this scale.
    pub updated: bool,
    /// The loss of this batch, before the update.
    pub loss: f64,
    /// The norm of the gradients, before clipping: of all micro-batches where they are
    /// accumulated and this run made an update.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
}

/// A compiled training step: forward, backward, clipping and optimizer in one program that works
/// on the model's values in place. Made by [`Model::train_step`].
pub struct TrainStep<I> {
    pub(super) update: Executable,
    accumulate: Option<Executable>,
    pub(super) store: Store,
    states: Vec<VarId>,
    report: PrecisionReport,
    loss_scale: Option<VarId>,
    averages: Vec<(VarId, VarId)>,
    options: TrainOptions,
    learning_rate: f64,
    pub(super) steps: u64,
    pub(super) pending: u32,
    pub(super) batches: u64,
    /// What a checkpoint holds.
    pub(super) kept: Vec<Kept>,
    types: PhantomData<fn(I)>,
}

impl<M: Module> Model<M> {
    /// Compiles a training step for a function from a batch to its loss. The step changes the
    /// model's parameters, except frozen ones; programs of the model see the new values.
    ///
    /// ```
    /// use mobilis_runtime::prelude::*;
    /// use mobilis_runtime::train::{Sgd, TrainOptions};
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Batch; }
    /// #[neural_module]
    /// struct Line { slope: Param![] }
    /// let model = Model::init(Line::default(), 0)?;
    /// type Pairs = (Tensor![Batch], Tensor![Batch]);
    /// let loss = |m: &Line, (x, y): Pairs| (x * m.slope.get()).mse_loss(y);
    /// let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), loss)?;
    /// let x = <Array![Batch]>::from_vec(vec![1., 2., 3.])?;
    /// let y = x.map(|x| 4. * x);
    /// for _ in 0..50 {
    ///     step.run((&x, &y))?;
    /// }
    /// assert!((model.get::<f32>("slope")?[0] - 4.).abs() < 1e-5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A mistake in the traced function, nothing to train, an operation without a gradient, a
    /// setting out of range.
    pub fn train_step<I: Arguments, E: Float>(
        &self,
        optimizer: impl Optimizer,
        options: TrainOptions,
        loss: impl FnOnce(&M, I) -> Tensor<(), E>,
    ) -> Result<TrainStep<I>, TrainError> {
        let graph = self.trace(Mode::Train, loss)?;
        let graphs = build_step(graph, &optimizer, &options)?;
        let ours = self.catalog().vars().iter().map(|var| Kept {
            id: var.id,
            name: var.name().into(),
            ty: var.ty.clone(),
            kind: var.kind,
        });
        // Its weights change before each is multiplied by often enough to be packed.
        let accumulate = |graph| self.executable(graph).with_weights(Weights::default().pack(false));
        let programs = graphs.update.vars.iter().chain(graphs.accumulate.iter().flat_map(|g| &g.vars));
        Ok(TrainStep {
            kept: Kept::all(ours.collect(), programs),
            update: self.executable(graphs.update),
            accumulate: graphs.accumulate.map(accumulate).transpose()?,
            store: self.store().clone(),
            states: graphs.states,
            report: graphs.report.at(self.sizes()),
            loss_scale: graphs.loss_scale,
            averages: graphs.averages,
            options,
            learning_rate: graphs.learning_rate,
            steps: 0,
            pending: 0,
            batches: 0,
            types: PhantomData,
        })
    }
}

impl<I> Drop for TrainStep<I> {
    /// Moments belong to the step, not to the model.
    fn drop(&mut self) {
        let mut values = self.store.lock();
        for id in &self.states {
            values.remove(*id);
        }
    }
}

impl<I: Arguments> TrainStep<I> {
    /// Trains on one batch, at the learning rate that the schedule gives for this step.
    ///
    /// # Errors
    /// Arrays whose sizes disagree; data that an operation refuses; a loss or gradients that are
    /// not finite, with the operation and module where that began. Nothing is updated then.
    pub fn run(&mut self, batch: impl Feed<I>) -> Result<StepReport, TrainError> {
        self.run_at(self.options.schedule.factor(self.steps), batch)
    }

    /// Trains on one batch at a given factor on the optimizer's learning rate, in place of the
    /// schedule's.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_at(&mut self, factor: f64, batch: impl Feed<I>) -> Result<StepReport, TrainError> {
        let mut inputs = Vec::with_capacity(self.update.graph().inputs.len());
        batch.feed(&mut inputs);
        let learning_rate = self.learning_rate * factor;
        let rate = [learning_rate as f32];
        let last = self.pending + 1 >= self.options.accumulate;
        let program = match &self.accumulate {
            Some(accumulate) if !last => accumulate,
            _ => {
                inputs.push(HostRef { sizes: &[], values: HostSlice::F32(&rate) });
                &self.update
            }
        };
        // Gradients may be too great for this scale and fit the next one.
        let bears = self.scale_may_fall();
        // The loss and the norm are the first two results.
        let mut found = [f64::NAN; 2];
        program.run(&inputs, |i, _, out| {
            if let (Some(slot), Out::F32(&[value])) = (found.get_mut(i), out) {
                *slot = f64::from(value);
            }
        })?;
        self.batches += 1;
        let [loss, grad_norm] = found;
        if loss.is_finite() && !grad_norm.is_finite() && bears {
            return Ok(StepReport { step: self.steps, updated: false, loss, grad_norm, learning_rate });
        }
        if !loss.is_finite() || !grad_norm.is_finite() {
            let first = match program.check_finite(&inputs) {
                Err(ProgramError::NonFinite(first)) => Some(first),
                Err(other) => return Err(other.into()),
                Ok(()) => None,
            };
            return Err(TrainError::NonFinite { step: self.steps + 1, loss, grad_norm, first });
        }
        self.pending = if last { 0 } else { self.pending + 1 };
        self.steps += last as u64;
        Ok(StepReport { step: self.steps, updated: last, loss, grad_norm, learning_rate })
    }

    /// Whether the loss has a scale that can be smaller than it is.
    fn scale_may_fall(&self) -> bool {
        let rules = self.options.precision.scales_loss();
        rules.is_some_and(|rules| self.loss_scale().unwrap_or(rules.initial) > rules.least)
    }

    /// What the loss of the next run is multiplied by before gradients are taken, where it is scaled
    /// and something has run.
    pub fn loss_scale(&self) -> Option<f64> {
        let values = self.store.lock();
        values.get(self.loss_scale?)?.data.to_f64().first().copied()
    }

    /// Lets parameters and their [averages](TrainOptions::average) change places, so that the model's other
    /// programs compute with averages, and what is saved of the model are those. Called again, all is as
    /// it was: that must be done before the next step, and before this step is saved. Gives whether there
    /// are averages: not before the first update.
    pub fn swap_averages(&mut self) -> bool {
        let mut values = self.store.lock();
        if self.averages.is_empty() || !self.averages.iter().all(|(_, average)| values.contains(*average)) {
            return false;
        }
        for (param, average) in &self.averages {
            let [Some(mut one), Some(mut other)] = [values.remove(*param), values.remove(*average)] else { continue };
            std::mem::swap(&mut one.data, &mut other.data);
            values.insert(*param, one);
            values.insert(*average, other);
        }
        true
    }

    /// How each of the step's products is computed, and why: for all sizes of run-time axes; see
    /// [`PrecisionReport::at`].
    pub fn precision_report(&self) -> &PrecisionReport {
        &self.report
    }

    /// How many updates have been made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many batches have been used: micro-batches where gradients are accumulated, and those
    /// that changed nothing because they were not finite.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// How it was built.
    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate * self.options.schedule.factor(self.steps)
    }

    /// The program of an update: its graph, its memory.
    pub fn program(&self) -> &Executable {
        &self.update
    }
}
