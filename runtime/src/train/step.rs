//! From a traced loss to the program of a training step.
//!
//! [`build_step`] appends to a graph, in this order: the gradients of its first output by every
//! parameter that is not frozen; roundings, where a [`Precision`] asks for them; accumulation over
//! micro-batches where that is asked for; the global norm and clipping; the optimizer; and the
//! updates of parameters, moments and the step counter. What comes out is an ordinary graph that any device runs: everything that changes is
//! a variable of it.

use super::Clip;
use super::loss_scale::Scaling;
use super::optimizer::{Optimizer, Slot, Target, UpdateContext};
use crate::graph::trace::{self, Handle, TraceError};
use crate::graph::{DType, Graph, Node, Scope, TensorType, Value, VarDecl, VarId, VarKind};
use crate::module::init::Init;
use crate::module::pattern;
use crate::ops::elementwise::{self as ew, CompareKind};
use crate::ops::{Op, leaf};
use crate::train::{Schedule, clip};
use crate::transforms::grad::{GradError, grad};
use crate::transforms::precision::{self, Applied, Precision, PrecisionError, PrecisionReport};
use crate::transforms::prune::prune;
use std::collections::HashMap;

/// The name of the argument that takes the learning rate.
pub const LEARNING_RATE: &str = "learning rate";
/// The name of the step counter among the states.
pub const STEP: &str = "optimizer.step";

/// Settings for the parameters whose names match a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pattern: String,
    lr_scale: Option<f64>,
    weight_decay: Option<f64>,
}

impl Group {
    /// The parameters whose names match `pattern`: see [`crate::module::pattern`].
    pub fn new(pattern: impl Into<String>) -> Group {
        Group { pattern: pattern.into(), lr_scale: None, weight_decay: None }
    }

    /// Multiplies the learning rate.
    #[must_use]
    pub fn lr_scale(mut self, factor: f64) -> Group {
        self.lr_scale = Some(factor);
        self
    }

    /// Replaces the optimizer's weight decay.
    #[must_use]
    pub fn weight_decay(mut self, decay: f64) -> Group {
        self.weight_decay = Some(decay);
        self
    }
}

/// How a training step is built, beside its optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// How gradients are limited.
    pub clip: Clip,
    /// The factor on the learning rate for every step.
    pub schedule: Schedule,
    /// Micro-batches per update, at least 1.
    pub accumulate: u32,
    /// Settings by name; of several that match the last one counts, setting by setting.
    pub groups: Vec<Group>,
    /// Whether parameters of rank 0 and 1 (norms, biases) are exempt from weight decay.
    pub decay_matrices_only: bool,
    /// How products are computed.
    pub precision: Precision,
    /// How much of the average of a parameter over the steps stays at each, where one is kept: 0.999.
    pub average: Option<f64>,
}

impl Default for TrainOptions {
    /// No clipping, a constant rate, an update for every batch, one group, single precision.
    fn default() -> Self {
        TrainOptions {
            clip: Clip::None,
            schedule: Schedule::constant(),
            accumulate: 1,
            groups: vec![],
            decay_matrices_only: false,
            precision: Precision::default(),
            average: None,
        }
    }
}

impl TrainOptions {
    /// Scales gradients so that their global norm is at most `bound`.
    #[must_use]
    pub fn clip_norm(mut self, bound: f64) -> Self {
        self.clip = Clip::Norm(bound);
        self
    }

    /// Limits every value of the gradients to `-bound..=bound`.
    #[must_use]
    pub fn clip_value(mut self, bound: f64) -> Self {
        self.clip = Clip::Value(bound);
        self
    }

    /// Follows a schedule.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Averages the gradients of `batches` runs before every update. With losses that are means
    /// over equally many targets this equals one batch of all of them.
    #[must_use]
    pub fn accumulate(mut self, batches: u32) -> Self {
        self.accumulate = batches;
        self
    }

    /// Adds settings for some parameters.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.groups.push(group);
        self
    }

    /// Exempts parameters of rank 0 and 1 (norms, biases) from weight decay. Groups may still
    /// set one.
    #[must_use]
    pub fn decay_matrices_only(mut self) -> Self {
        self.decay_matrices_only = true;
        self
    }

    /// Computes products with fewer bits, forward and backward: see [`crate::precision`]. Parameters,
    /// moments and updates stay in single precision.
    #[must_use]
    pub fn precision(mut self, precision: impl Into<Precision>) -> Self {
        self.precision = precision.into();
        self
    }

    /// Keeps an exponential moving average of each parameter beside it, which begins at the first values:
    /// `average = decay average + (1 - decay) parameter` at each step. NeMo: the callback `EMA`.
    /// [`swap_averages`](super::TrainStep::swap_averages) shows them to the model.
    #[must_use]
    pub fn average(mut self, decay: f64) -> Self {
        self.average = Some(decay);
        self
    }

    fn validate(&self) -> Result<(), String> {
        if self.accumulate == 0 {
            return Err("`accumulate` is 0; an update needs at least one batch".into());
        }
        if let Some(decay) = self.average.filter(|d| !(0.0..1.0).contains(d)) {
            return Err(format!("averages keep {decay} of themselves; at least 0 and less than 1 is expected"));
        }
        match self.clip {
            Clip::Norm(bound) | Clip::Value(bound) if bound.is_nan() || bound <= 0.0 => {
                Err(format!("gradients are clipped at {bound}; the bound must be positive"))
            }
            _ => Ok(()),
        }
    }

    fn lr_scale(&self, name: &str) -> f64 {
        self.find(name, |g| g.lr_scale).unwrap_or(1.0)
    }

    fn weight_decay(&self, target: Target, optimizer: &dyn Optimizer) -> f64 {
        let usual = if self.decay_matrices_only && target.ty.rank() < 2 { 0.0 } else { optimizer.decay() };
        self.find(target.name, |g| g.weight_decay).unwrap_or(usual)
    }

    fn find(&self, name: &str, setting: impl Fn(&Group) -> Option<f64>) -> Option<f64> {
        self.groups.iter().rev().filter(|g| pattern::matches(&g.pattern, name)).find_map(setting)
    }
}

/// Why a training step cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// The traced function gives nothing.
    #[error("the function gives no result; its first result must be the loss")]
    NoLoss,
    /// Every parameter on the way to the loss is frozen, or there is none.
    #[error("there is nothing to train: {found}")]
    NothingToTrain {
        /// What there is instead.
        found: String,
    },
    /// A setting is out of range.
    #[error("{owner}: {reason}")]
    Setting {
        /// The optimizer's name, or `TrainOptions`.
        owner: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A group covers no parameter.
    #[error("the group \"{pattern}\" covers no trained parameter; the parameters are {names}")]
    EmptyGroup {
        /// Its pattern.
        pattern: String,
        /// The parameters' names.
        names: String,
    },
    /// The precision asked for fits no part of the model.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// The loss has no gradient.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// An optimizer built something inconsistent.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// The programs of a training step. They share their variables.
#[derive(Clone, Debug)]
pub struct StepGraphs {
    /// Forward, backward, clipping, update. Takes the loss function's arguments and then the
    /// learning rate; gives the loss, the norm of the gradients before clipping, and the other
    /// results of the function.
    pub update: Graph,
    /// Forward and backward, adding to the accumulated gradients: run before `update` for all
    /// but the last of the micro-batches. Takes the function's arguments and gives the loss, the
    /// norm of this batch's gradients, and the other results of the function. `None` where every
    /// batch makes an update.
    pub accumulate: Option<Graph>,
    /// The variables that the step adds: counter, moments, sums.
    pub states: Vec<VarId>,
    /// The learning rate that a schedule's factor of 1 means.
    pub learning_rate: f64,
    /// How each product is computed.
    pub report: PrecisionReport,
    /// The variable that the loss is multiplied by before gradients are taken, where it is.
    pub loss_scale: Option<VarId>,
    /// Parameters, each with the variable that holds its average, where averages are kept.
    pub averages: Vec<(VarId, VarId)>,
}

/// Extends a graph, whose first output is a scalar loss, to a training step.
///
/// # Errors
/// No loss, nothing to train, a setting out of range, a group or an exception that covers nothing,
/// or an operation without a gradient (named with its module).
pub fn build_step(graph: Graph, optimizer: &dyn Optimizer, options: &TrainOptions) -> Result<StepGraphs, BuildError> {
    options.validate().map_err(|reason| BuildError::Setting { owner: "TrainOptions", reason })?;
    optimizer.validate().map_err(|reason| BuildError::Setting { owner: optimizer.name(), reason })?;
    let loss = *graph.outputs.first().ok_or(BuildError::NoLoss)?;
    let trained = trained(&graph)?;
    for group in &options.groups {
        if !trained.iter().any(|(decl, _)| pattern::matches(&group.pattern, &decl.name)) {
            let names: Vec<&str> = trained.iter().map(|(decl, _)| decl.name.as_str()).collect();
            return Err(BuildError::EmptyGroup { pattern: group.pattern.clone(), names: names.join(", ") });
        }
    }
    let mut graph = graph;
    let before = graph.vars.len();
    let forward = graph.nodes.len();
    let scaling = options.precision.scales_loss().map(Scaling::new);
    let scaled = match &scaling {
        None => loss,
        Some(scaling) => trace::extend(&mut graph, |_| scaling.scaled(loss))?,
    };
    let wrt: Vec<Value> = trained.iter().map(|(_, v)| *v).collect();
    let mut grads = grad(&mut graph, scaled, &wrt)?;
    // Gradients are results while the graph is rewritten.
    let results = graph.outputs.len();
    graph.outputs.append(&mut grads);
    let Applied { mut graph, report } =
        precision::apply(graph, &options.precision, &precision::Options { forward, training: true })?;
    let mut grads = graph.outputs.split_off(results);
    let (loss, trained) = (graph.outputs[0], self::trained(&graph)?);
    graph.scopes.push(Scope { path: "optimizer".into(), kind: optimizer.name(), parent: 0 });
    if let Some(scaling) = &scaling {
        grads = in_last_scope(&mut graph, || scaling.unscaled(&grads))?;
    }

    // The same variables in both programs.
    let sums: Vec<VarDecl> = match options.accumulate {
        1 => vec![],
        _ => trained.iter().map(|(decl, _)| state(&decl.name, "grad_sum", decl.ty.clone(), 0.0)).collect(),
    };
    let accumulate = match sums.is_empty() {
        true => None,
        false => Some(accumulation(graph.clone(), loss, &grads, &sums, scaling.as_ref())?),
    };
    let scale = scaling.as_ref();
    let averages: Vec<VarDecl> = match options.average {
        None => vec![],
        Some(_) => trained.iter().map(|(decl, _)| state(&decl.name, "ema", decl.ty.clone(), 0.0)).collect(),
    };
    let update = Update { optimizer, options, trained: &trained, sums: &sums, averages: &averages, scaling: scale };
    let update = update.build(graph, loss, &grads)?;
    let averages = trained.iter().zip(&averages).map(|((decl, _), average)| (decl.id, average.id)).collect();
    let states = update.vars[before..].iter().map(|v| v.id).collect();
    let loss_scale = scaling.map(|s| s.scale.id);
    let learning_rate = optimizer.learning_rate();
    Ok(StepGraphs { update, accumulate, states, learning_rate, report, loss_scale, averages })
}

/// The parameters that training changes, and their nodes.
fn trained(graph: &Graph) -> Result<Vec<(VarDecl, Value)>, BuildError> {
    let mut found = vec![];
    for (var, value) in graph.nodes.iter().enumerate().filter_map(read_at) {
        let decl = &graph.vars[var as usize];
        if decl.kind == VarKind::Param && !decl.frozen && decl.ty.dtype == DType::F32 {
            found.push((decl.clone(), value));
        }
    }
    if found.is_empty() {
        let frozen = graph.vars.iter().filter(|v| v.kind == VarKind::Param && v.frozen).count();
        let found = match frozen {
            0 => "the loss reads no parameter".to_string(),
            n => format!("all {n} parameters that the loss reads are frozen"),
        };
        return Err(BuildError::NothingToTrain { found });
    }
    Ok(found)
}

/// A new variable that the step keeps for the parameter `name`.
pub(super) fn state(name: &str, slot: &str, ty: TensorType, init: f64) -> VarDecl {
    let init = if init == 0.0 { Init::Zeros } else { Init::Constant(init) };
    VarDecl { id: VarId::fresh(), name: format!("{name}.{slot}"), ty, kind: VarKind::State, init, frozen: false }
}

pub(super) fn read(decl: &VarDecl) -> Handle {
    trace::variable(|| decl.clone(), decl.id)
}

/// The program of all micro-batches but the last.
fn accumulation(
    mut graph: Graph,
    loss: Value,
    grads: &[Value],
    sums: &[VarDecl],
    scaling: Option<&Scaling>,
) -> Result<Graph, TraceError> {
    let (norm, finite) = in_last_scope(&mut graph, || {
        let grads: Vec<Handle> = grads.iter().map(|g| trace::handle(*g)).collect();
        let norm = clip::global_norm(&grads);
        for (g, sum) in grads.iter().zip(sums) {
            let total = ew::add(read(sum), *g);
            trace::update(sum.id, total);
        }
        (trace::value(norm), trace::value(finite(trace::handle(loss), norm)))
    })?;
    finished(graph, loss, norm, finite, scaling)
}

/// Whether the loss and the norm of the gradients are: `x - x` is 0 for a finite `x`, NaN for any
/// other.
fn finite(loss: Handle, norm: Handle) -> Handle {
    let zero = ew::add(ew::sub(loss, loss), ew::sub(norm, norm));
    ew::compare(CompareKind::Eq, zero, leaf::scalar(0.0))
}

/// Extends the graph by nodes that belong to the scope added last, the optimizer's.
fn in_last_scope<R>(graph: &mut Graph, f: impl FnOnce() -> R) -> Result<R, TraceError> {
    let scope = graph.scopes.len() as u32 - 1;
    trace::extend(graph, |_| trace::in_scope(scope, f))
}

/// The variable that a node reads, and its value.
fn read_at((id, node): (usize, &Node)) -> Option<(u32, Value)> {
    match &node.op {
        Op::Var(var) => Some((var.index, Value { node: id as u32, port: 0 })),
        _ => None,
    }
}

/// Makes every update conditional on a finite loss and norm, and puts these two in front of the
/// results.
fn finished(
    mut graph: Graph,
    loss: Value,
    norm: Value,
    finite: Value,
    scaling: Option<&Scaling>,
) -> Result<Graph, TraceError> {
    let old: HashMap<u32, Value> = graph.nodes.iter().enumerate().filter_map(read_at).collect();
    let updates: Vec<(u32, Value, bool)> = graph
        .updates
        .iter()
        .map(|(var, new)| {
            // Optimizers guard slots that they go on computing with.
            let node = graph.node(*new);
            (*var, *new, matches!(node.op, Op::Select(_)) && node.inputs[0] == finite && node.inputs[2] == old[var])
        })
        .collect();
    graph.updates = in_last_scope(&mut graph, || {
        let guarded = |var: u32, new: Value, done: bool| match done {
            true => new,
            false => trace::value(ew::select(trace::handle(finite), trace::handle(new), trace::handle(old[&var]))),
        };
        updates.iter().map(|(var, new, done)| (*var, guarded(*var, *new, *done))).collect::<Vec<_>>()
    })?;
    // The loss's scale is there for steps that are not.
    if let Some(scaling) = scaling {
        in_last_scope(&mut graph, || scaling.update(trace::handle(finite)))?;
    }
    let rest = graph.outputs.split_off(1);
    graph.outputs = [loss, norm].into_iter().chain(rest).collect();
    Ok(prune(graph))
}

struct Update<'a> {
    optimizer: &'a dyn Optimizer,
    options: &'a TrainOptions,
    trained: &'a [(VarDecl, Value)],
    sums: &'a [VarDecl],
    averages: &'a [VarDecl],
    scaling: Option<&'a Scaling>,
}

impl Update<'_> {
    fn build(&self, mut graph: Graph, loss: Value, grads: &[Value]) -> Result<Graph, TraceError> {
        let (norm, finite) = in_last_scope(&mut graph, || self.append(loss, grads))?;
        finished(graph, loss, norm, finite, self.scaling)
    }

    /// Builds everything behind the gradients. Gives their norm, and whether all is finite.
    fn append(&self, loss: Value, grads: &[Value]) -> (Value, Value) {
        let grads: Vec<Handle> = grads.iter().map(|g| trace::handle(*g)).collect();
        let grads = self.averaged(&grads);
        let norm = clip::global_norm(&grads);
        let finite = finite(trace::handle(loss), norm);
        let grads = self.options.clip.apply(&grads, norm);

        let scalar = |dtype| TensorType::new(vec![], dtype);
        let lr = trace::input(LEARNING_RATE.into(), scalar(DType::F32), "");
        let counter = VarDecl {
            id: VarId::fresh(),
            name: STEP.into(),
            ty: scalar(DType::I32),
            kind: VarKind::State,
            init: Init::Zeros,
            frozen: false,
        };
        let count = ew::add(read(&counter), leaf::fill(1.0, scalar(DType::I32)));
        trace::update(counter.id, count);
        let step = ew::cast(count, DType::F32);

        for (i, ((decl, value), grad)) in self.trained.iter().zip(grads).enumerate() {
            let target = Target { name: &decl.name, ty: &decl.ty };
            let slots: Vec<Slot> = self.optimizer.slots(target);
            let slots: Vec<VarDecl> = slots.into_iter().map(|s| state(&decl.name, s.name, s.ty, s.init)).collect();
            let lr = match self.options.lr_scale(&decl.name) {
                1.0 => lr,
                factor => ew::scale(lr, factor),
            };
            let updated = self.optimizer.update(&UpdateContext {
                target,
                param: trace::handle(*value),
                grad,
                slots: slots.iter().map(read).collect(),
                lr,
                step,
                weight_decay: self.options.weight_decay(target, self.optimizer),
                finite,
            });
            trace::update(decl.id, updated.param);
            if let (Some(average), Some(decay)) = (self.averages.get(i), self.options.average) {
                // Before the first step it is what the parameter was.
                let first = ew::compare(CompareKind::Eq, step, leaf::scalar(1.0));
                let before = ew::select(first, trace::handle(*value), read(average));
                let after = ew::add(ew::scale(before, decay), ew::scale(updated.param, 1.0 - decay));
                trace::update(average.id, after);
            }
            for (slot, new) in slots.iter().zip(updated.slots) {
                trace::update(slot.id, new);
            }
        }
        (trace::value(norm), trace::value(finite))
    }

    /// The mean over the micro-batches, whose sums start again at zero.
    fn averaged(&self, grads: &[Handle]) -> Vec<Handle> {
        if self.sums.is_empty() {
            return grads.to_vec();
        }
        let share = 1.0 / self.options.accumulate as f64;
        let mean = |(g, sum): (&Handle, &VarDecl)| {
            let total = ew::add(read(sum), *g);
            trace::update(sum.id, leaf::fill(0.0, sum.ty.clone()));
            ew::scale(total, share)
        };
        grads.iter().zip(self.sums).map(mean).collect()
    }
}
