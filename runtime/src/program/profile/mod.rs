//! Where a program's time goes, and how near that is to what the machine can do.
//!
//! [`Program::profile`] runs a program some times with a clock around every task. What comes out,
//! [`Profile`], knows for each operation, each kind of operation and each module: the time, the
//! floating-point operations and bytes of the graph's cost rules, and the time that the machine
//! would need for them at least by its measured ceilings ([`mobilis_kernels::cpu::limits`]): the
//! roofline. It prints as a table, as JSON, as a picture ([`Profile::to_svg`]) and as a trace for
//! Perfetto or `chrome://tracing` ([`Profile::to_trace`]).
//!
//! Times are medians over the runs. Costs are those of the operations, not of the kernels: bytes
//! count every operand once, so an operation that stays in a cache may seem faster than memory;
//! its ceiling is that of the level its operands fit.

mod json;
mod svg;
mod table;
mod trace;

use super::host::HostRef;
use super::{Arguments, Executable, Feed, Program, ProgramError, Results, StoredWeight, WeightFormat};
use crate::devices::Device;
use crate::graph::{Graph, Sizes, TensorType};
use crate::ops::Op;
use crate::train::{TrainError, TrainStep};
use mobilis_kernels::cpu::limits::{self, Limits};
use mobilis_kernels::pool::{Pool, record};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Work and the time that it took, of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// An operation's or module's name.
    pub name: String,
    /// How many there are in a run.
    pub calls: usize,
    /// Seconds.
    pub seconds: f64,
    /// Floating-point operations; a multiply-add counts two.
    pub flops: f64,
    /// Bytes read and written, every operand once.
    pub bytes: f64,
    /// The seconds that the machine needs for these operations and bytes at least.
    pub least: f64,
}

impl Row {
    /// Floating-point operations per second.
    pub fn rate(&self) -> f64 {
        self.flops / self.seconds.max(1e-12)
    }

    /// Bytes per second.
    pub fn bandwidth(&self) -> f64 {
        self.bytes / self.seconds.max(1e-12)
    }

    /// Floating-point operations per byte.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes.max(1.0)
    }

    /// The part of the machine's limit that was reached; nothing where no work is known.
    pub fn share(&self) -> Option<f64> {
        (self.least > 0.0).then(|| self.least / self.seconds.max(1e-12))
    }

    fn add(&mut self, other: &Row) {
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.least += other.least;
    }
}

/// A task: what runs for one operation, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The work and the time. An operation of several tasks has its work at the slowest.
    pub row: Row,
    /// The code that runs: `softmax::lower`.
    pub kernel: String,
    /// The scope of the operation: an index into [`Profile::modules`].
    pub scope: usize,
    /// The settings of the operation and the type of its first result.
    pub detail: String,
    /// When it began and ended in the last run, from the run's beginning.
    pub span: (Duration, Duration),
}

/// A module with everything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The work and the time, with that of inner modules. The name is the path.
    pub row: Row,
    /// The module's type.
    pub kind: &'static str,
    /// The module around it; the root is its own.
    pub parent: usize,
}

/// What was found. See the [module](self).
#[derive(Clone, Debug)]
pub struct Profile {
    /// How many runs were measured.
    pub runs: usize,
    /// Seconds of a run, the median, with what is not part of any task.
    pub seconds: f64,
    /// Every task in its order.
    pub tasks: Vec<Timed>,
    /// By kind of operation, slowest first.
    pub operations: Vec<Row>,
    /// Every module in the order of tracing; the first is the whole program.
    pub modules: Vec<Module>,
    /// Bytes of the arena, and the largest sum of bytes alive at once.
    pub memory: (usize, usize),
    /// Bytes of parameters, buffers and states.
    pub variables: usize,
    /// The machine's ceilings.
    pub limits: &'static Limits,
    /// Threads.
    pub threads: usize,
    /// When each thread was busy in the last run, from the run's beginning.
    pub busy: Vec<(String, Duration, Duration)>,
}

impl<I: Arguments, O: Results> Program<I, O> {
    /// Runs `runs` times, after once for preparation, and measures every operation. States are
    /// updated as in other runs.
    ///
    /// ```
    /// use mobilis_runtime::prelude::*;
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Batch; pub Hidden = 64; }
    /// let model = Model::init((), 0)?;
    /// let program = model.compile(|_, x: Tensor![Batch, Hidden]| x.softmax(Hidden).exp())?;
    /// let profile = program.profile(&<Array![Batch, Hidden]>::zeros([16, 64])?, 3)?;
    /// assert_eq!(profile.operations.iter().map(|o| o.calls).sum::<usize>(), profile.tasks.len());
    /// println!("{}", profile.to_text());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and that only programs for the CPU are profiled.
    pub fn profile(&self, arrays: impl Feed<I>, runs: usize) -> Result<Profile, ProgramError> {
        let mut inputs = vec![];
        arrays.feed(&mut inputs);
        self.executable().profile(&inputs, runs)
    }
}

impl<I: Arguments> TrainStep<I> {
    /// Trains `runs` times and once more on one batch, and measures every operation.
    ///
    /// # Errors
    /// Those of a run.
    pub fn profile(&self, batch: impl Feed<I>, runs: usize) -> Result<Profile, TrainError> {
        let mut inputs = vec![];
        batch.feed(&mut inputs);
        let rate = [self.learning_rate() as f32];
        inputs.push(HostRef { sizes: &[], values: super::host::HostSlice::F32(&rate) });
        Ok(self.program().profile(&inputs, runs)?)
    }
}

impl Executable {
    /// Runs `runs` times, at least once, after once for preparation, and measures every operation.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and that only programs for the CPU are profiled.
    pub fn profile(&self, inputs: &[HostRef], runs: usize) -> Result<Profile, ProgramError> {
        if self.device() != Device::Cpu {
            return Err(ProgramError::Lower("only programs for the CPU are profiled: `model.on(Device::Cpu)`".into()));
        }
        let limits = limits::measured();
        self.run(inputs, |_, _, _| {})?;
        let mut clock = Clock::default();
        for _ in 1..runs.max(1) {
            clock.run(self, inputs)?;
        }
        // The last run is the one that the trace shows.
        let (result, spans) = record::recorded(|| clock.run(self, inputs));
        result?;
        let origin = clock.origin.unwrap_or_else(Instant::now);
        let since = |t: Instant| t.saturating_duration_since(origin);
        let busy = spans.into_iter().filter(|s| s.end >= origin).map(|s| (s.thread, since(s.start), since(s.end)));
        let sizes = self.bind(inputs)?;
        Ok(self.evaluate(&clock, &sizes, busy.collect(), limits))
    }

    fn evaluate(
        &self,
        clock: &Clock,
        sizes: &Sizes,
        busy: Vec<(String, Duration, Duration)>,
        limits: &'static Limits,
    ) -> Profile {
        let graph = self.optimized();
        let threads = Pool::global().threads();
        let kinds = self.prepared(|b| b.tasks().iter().map(|t| (t.node, t.kernel)).collect::<Vec<_>>());
        let kinds = kinds.unwrap_or_default();
        let times: Vec<f64> = clock.times.iter().map(|t| median(t)).collect();
        let mut modules: Vec<Module> = graph
            .scopes
            .iter()
            .map(|s| Module {
                row: Row { name: s.path.clone(), ..Row::default() },
                kind: s.kind,
                parent: s.parent as usize,
            })
            .collect();
        if modules.is_empty() {
            modules.push(Module { row: Row::default(), kind: "program", parent: 0 });
        }
        let weights = self.weights();
        let stored = weights.iter().filter(|w| w.bytes > 0).map(|w| (w.name.as_str(), w)).collect();
        let mut tasks = vec![];
        let mut operations: Vec<Row> = vec![];
        for (i, (node, kernel)) in kinds.iter().enumerate() {
            // A node's work is counted where most of its time is spent.
            let same = |j: &usize| kinds[*j].0 == *node;
            let slowest = (0..kinds.len()).filter(same).max_by(|a, b| times[*a].total_cmp(&times[*b]));
            let kernel = short(kernel);
            let mut task = Timed {
                row: Row { name: "results".into(), calls: 1, seconds: times[i], ..Row::default() },
                scope: 0,
                detail: String::new(),
                span: clock.spans[i],
                kernel,
            };
            if let Some(n) = graph.nodes.get(*node as usize) {
                task.scope = n.scope as usize;
                task.row.name = n.op.rule().name().into();
                let attributes = n.op.rule().attributes();
                let space = if attributes.is_empty() { "" } else { " " };
                task.detail =
                    format!("{attributes}{space}{}", n.types.first().map(TensorType::to_string).unwrap_or_default());
                if slowest == Some(i) {
                    let (flops, bytes, small) = work(graph, *node as usize, sizes, &stored);
                    let peak = if small { limits.int8_ops.unwrap_or(limits.peak()) } else { limits.peak() };
                    let bandwidth = limits.level_of(bytes as usize, threads).rate.of(threads, limits.threads);
                    task.row.least = (flops / peak.of(threads, limits.threads)).max(bytes / bandwidth);
                    (task.row.flops, task.row.bytes) = (flops, bytes);
                }
            }
            if task.kernel.ends_with("copy_view") {
                task.row.name = "copy".into();
            }
            match operations.iter_mut().find(|r| r.name == task.row.name) {
                Some(row) => row.add(&task.row),
                None => operations.push(task.row.clone()),
            }
            let mut scope = task.scope;
            loop {
                modules[scope].row.add(&task.row);
                if scope == 0 {
                    break;
                }
                scope = modules[scope].parent;
            }
            tasks.push(task);
        }
        operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let variables =
            graph.vars.iter().filter_map(|v| Some(v.ty.count().eval(sizes).ok()? * v.ty.dtype.bytes())).sum();
        Profile {
            runs: clock.totals.len(),
            seconds: median(&clock.totals),
            tasks,
            operations,
            modules,
            memory: self.memory().unwrap_or_default(),
            variables,
            limits,
            threads,
            busy,
        }
    }
}

/// Times of tasks over runs.
#[derive(Default)]
struct Clock {
    times: Vec<Vec<f64>>,
    totals: Vec<f64>,
    /// When the last run began.
    origin: Option<Instant>,
    spans: Vec<(Duration, Duration)>,
}

impl Clock {
    fn run(&mut self, program: &Executable, inputs: &[HostRef]) -> Result<(), ProgramError> {
        let origin = Instant::now();
        let Clock { times, spans, .. } = self;
        program.run_cpu(inputs, &mut |_, _, _| {}, |i, task, m| {
            let start = Instant::now();
            let result = (task.run)(m);
            let end = Instant::now();
            if times.len() <= i {
                times.resize(i + 1, vec![]);
                spans.resize(i + 1, Default::default());
            }
            times[i].push((end - start).as_secs_f64());
            spans[i] = (start - origin, end - origin);
            result
        })?;
        self.totals.push(origin.elapsed().as_secs_f64());
        self.origin = Some(origin);
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// A node's floating-point operations and bytes by its cost rule, and whether it computes with
/// weights of at most eight bits. Weights count as many bytes as the program stores for them.
fn work(graph: &Graph, node: usize, sizes: &Sizes, stored: &HashMap<&str, &StoredWeight>) -> (f64, f64, bool) {
    let n = &graph.nodes[node];
    let inputs: Vec<&TensorType> = n.inputs.iter().map(|v| graph.ty(*v)).collect();
    let cost = n.op.rule().cost(&inputs, &n.types);
    // Beyond what an extent may be: no figure rather than a wrong one.
    let value = |e: &crate::graph::Extent| e.eval(sizes).map_or(0.0, |v| v as f64);
    let (flops, mut bytes, mut small) = (value(&cost.flops), value(&cost.bytes), false);
    if !matches!(n.op, Op::Einsum(_) | Op::Product(_)) {
        return (flops, bytes, small);
    }
    for input in &n.inputs {
        let Op::Var(var) = &graph.node(*input).op else { continue };
        if let Some(weight) = stored.get(graph.vars[var.index as usize].name.as_str()) {
            let plain = 4 * weight.size.0 * weight.size.1;
            bytes += weight.bytes.min(plain) as f64 - plain as f64;
            use WeightFormat::*;
            small |= matches!(weight.format, Q8_0 | Q4_0 | Int8 | Stored);
        }
    }
    (flops, bytes.max(0.0), small)
}

/// `mobilis_runtime::devices::cpu::softmax::lower::{{closure}}` as `softmax::lower`.
fn short(kernel: &str) -> String {
    let name = kernel.split("::{{closure}}").next().unwrap_or(kernel);
    let name = name.rsplit_once("devices::cpu::").map_or(name, |(_, rest)| rest);
    name.split('<').next().unwrap_or(name).to_string()
}

#[cfg(test)]
mod tests;
