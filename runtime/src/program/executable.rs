//! Executables: a graph, the store of its variables, and what was prepared for each set of
//! sizes.

use super::ProgramError;
use super::bind::{BindError, bind};
use super::gpu;
use super::host::{self, HostRef, HostSlice};
use super::kept::{Kept, Prepared};
use super::taken::Taken;
use super::weights::{StoredWeight, Weights};
use crate::array::show::Picture;
use crate::devices::Device;
use crate::devices::cpu::lower::Task;
use crate::devices::cpu::weights::{Plain, Prepared as PreparedWeights};
use crate::devices::cpu::{self, Out};
use crate::devices::cuda::Fallback;
use crate::devices::reference::{self, RefArray};
use crate::graph::{DType, Graph, Sizes, Value, VarDecl, VarKind};
use crate::module::init::{Init, Key};
use crate::module::store::{Data, Entry, Store, Values};
use crate::ops::Op;
use crate::transforms::precision::{self, Applied, Precision, PrecisionReport};
use mobilis_kernels::memory::{Arena, External, Memory};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The first value that was not finite although everything it was computed from was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{what} in {location}: {count} of {total} values are not finite, the first at {index:?} is {value}")]
pub struct NonFinite {
    /// The operation, argument or variable.
    pub what: String,
    /// The module.
    pub location: String,
    /// How many values are infinite or NaN.
    pub count: usize,
    /// Of how many.
    pub total: usize,
    /// Where the first is.
    pub index: Vec<usize>,
    /// What it is.
    pub value: f64,
}

/// A value that a run left behind.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// The values.
    pub data: Data,
}

/// A graph that runs: untyped arguments in, untyped results out.
pub struct Executable {
    /// As it was traced and transformed, before it was optimized for the device.
    source: Graph,
    pub(super) optimized: Graph,
    device: Device,
    pub(super) store: Store,
    known: Sizes,
    alike: bool,
    weights: PreparedWeights,
    prepared: Mutex<Kept>,
    /// The store's last change when a run left it with everything prepared.
    settled: Mutex<Option<u64>>,
    pub(super) on_gpu: gpu::Programs,
    pub(super) taps: Mutex<HashMap<String, Tapped>>,
}

pub(super) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What a panic leaves behind is prepared anew or overwritten by the next run.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executable {
    /// Prepares a graph for a device. `known` are sizes of run-time axes that the model fixes.
    pub fn new(graph: Graph, device: Device, store: Store, known: Sizes) -> Executable {
        let source = crate::transforms::prune::prune(graph);
        let optimized = match device {
            Device::Cpu | Device::Cuda(_) | Device::Emulated => cpu::optimize(source.clone()),
            Device::Reference => source.clone(),
        };
        Executable {
            source,
            optimized,
            device,
            store,
            known,
            alike: false,
            weights: PreparedWeights::new(Weights::default()),
            prepared: Mutex::default(),
            settled: Mutex::new(None),
            on_gpu: gpu::Programs::default(),
            taps: Mutex::new(HashMap::new()),
        }
    }

    /// The same with another storage for the weights that products read. It is the CPU's alone: on GPUs products
    /// read 16 bits, `Q8_0` and `Q4_0` as the model stores them, and all else in `f32`.
    ///
    /// # Errors
    /// An exception whose pattern matches no variable; another format than the model's on a GPU.
    pub fn with_weights(mut self, weights: Weights) -> Result<Executable, ProgramError> {
        let names = self.source.vars.iter().map(|v| v.name.as_str());
        if let Some(pattern) = weights.stray(names.clone()) {
            let hint = crate::suggest::did_you_mean(pattern, names);
            return Err(ProgramError::NoWeight { pattern: pattern.into(), hint });
        }
        if matches!(self.device, Device::Cuda(_) | Device::Emulated) && weights != Weights::default() {
            return Err(ProgramError::Lower(format!(
                "on `{}` weights are used as the model stores them: convert the model (`mobilis convert --dtype`), \
                 or run it on the CPU",
                self.device
            )));
        }
        self.weights = PreparedWeights::new(weights);
        lock(&self.prepared).clear();
        *lock(&self.settled) = None;
        Ok(self)
    }

    /// The same with every sum on the CPU in one order, however many rows, columns or queries a run has: an item's
    /// result is then the same to the bit with any company, as far as the graph keeps items apart. Products of up
    /// to eight rows are slower for it.
    #[must_use]
    pub fn alike(mut self) -> Executable {
        self.alike = true;
        lock(&self.prepared).clear();
        *lock(&self.settled) = None;
        self
    }

    /// The same with its products computed as `precision` says, and how each of them is.
    ///
    /// # Errors
    /// A setting out of range, or an exception that is about no parameter.
    pub fn with_precision(self, precision: &Precision) -> Result<(Executable, PrecisionReport), ProgramError> {
        let options = precision::Options { forward: self.source.nodes.len(), training: false };
        let Applied { graph, report } = precision::apply(self.source, precision, &options)?;
        let report = report.at(&self.known);
        let weights = self.weights.asked().clone();
        let changed = Executable::new(graph, self.device, self.store, self.known);
        Ok((Executable { weights: PreparedWeights::new(weights), alike: self.alike, ..changed }, report))
    }

    /// What became of the weights that products read, for the sizes of the runs so far.
    pub fn weights(&self) -> Vec<StoredWeight> {
        match self.device {
            Device::Cpu | Device::Reference => self.weights.report(&self.optimized),
            Device::Cuda(_) | Device::Emulated => self.on_gpu.weights(&self.optimized),
        }
    }

    /// The graph as it was traced.
    pub fn graph(&self) -> &Graph {
        &self.source
    }

    /// The graph as the device runs it.
    pub fn optimized(&self) -> &Graph {
        &self.optimized
    }

    /// Sizes of run-time axes that hold for every run.
    pub fn known(&self) -> &Sizes {
        &self.known
    }

    /// A tap's value in the last run.
    pub fn tap(&self, name: &str) -> Option<Tapped> {
        lock(&self.taps).get(name).cloned()
    }

    /// Bytes of the arena for the sizes of the last run, and the largest sum of bytes alive at
    /// once in it. Nothing before the first run, and on the reference device.
    pub fn memory(&self) -> Option<(usize, usize)> {
        let on_cpu = lock(&self.prepared).last().map(|p| (p.bound.arena_bytes(), p.bound.lower_bound));
        on_cpu.or_else(|| self.on_gpu.memory())
    }

    /// Bytes that the program keeps between runs to compute in: as many as the largest of the sizes needs that
    /// are prepared. Nothing before the first run, and on other devices than the CPU.
    pub fn held(&self) -> usize {
        lock(&self.prepared).arena.bytes()
    }

    /// How many values a run for the last sizes copies because no kernel reads them as they lie:
    /// transposed, repeated, or stored when all has run. Nothing before the first run, and on the
    /// reference device.
    pub fn copies(&self) -> Option<usize> {
        let on_cpu = lock(&self.prepared).last().map(|p| p.bound.copied);
        on_cpu.or_else(|| self.on_gpu.copies())
    }

    /// Bytes that the kernels of a GPU program for the last sizes read and write in a run, as far as the plan tells: of all
    /// places that each of them is given. Nothing before the first run, and on other devices.
    pub fn bytes_moved(&self) -> Option<usize> {
        self.on_gpu.moved()
    }

    /// The operations that a GPU program for the last sizes runs on the host because the device has no kernel
    /// for them, with the reason. Empty on other devices.
    pub fn fallbacks(&self) -> Vec<Fallback> {
        self.on_gpu.fallbacks()
    }

    /// The kernels that a GPU program for the last sizes launches, in order. Empty on other devices.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.on_gpu.kernels()
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What was prepared for the sizes of the last run.
    #[cfg(feature = "draw")]
    pub(super) fn prepared<R>(&self, f: impl FnOnce(&cpu::Bound) -> R) -> Option<R> {
        lock(&self.prepared).last().map(|p| f(&p.bound))
    }

    pub(super) fn check_arguments(&self, inputs: &[HostRef]) -> Result<(), BindError> {
        let expected = self.source.inputs.len();
        if inputs.len() != expected {
            return Err(BindError::Count { expected, found: inputs.len() });
        }
        for (decl, given) in self.source.inputs.iter().zip(inputs) {
            let argument = || format!("`{}`", decl.name);
            if given.sizes.len() != decl.ty.rank() || given.dtype() != decl.ty.dtype {
                let found = format!("sizes {:?} of {}", given.sizes, given.dtype());
                return Err(BindError::Type { argument: argument(), expected: decl.ty.to_string(), found });
            }
            let found = match given.values {
                HostSlice::F32(s) => s.len(),
                HostSlice::I32(s) => s.len(),
                HostSlice::Bool(s) => s.len(),
            };
            let count = given.sizes.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
            if count != Some(found) {
                return Err(BindError::Values { argument: argument(), sizes: given.sizes.to_vec(), found });
            }
        }
        Ok(())
    }

    pub(super) fn bind(&self, inputs: &[HostRef]) -> Result<Sizes, BindError> {
        let given: Vec<&[usize]> = inputs.iter().map(|i| i.sizes).collect();
        bind(&self.source, &self.known, &given)
    }

    /// The sizes of every variable for these sizes of axes.
    pub(super) fn var_sizes(&self, sizes: &Sizes) -> Result<Vec<Vec<usize>>, BindError> {
        let of = |decl: &VarDecl| {
            let place = || format!("`{}`", decl.name);
            decl.ty.sizes(sizes).map_err(|source| BindError::Extent { place: place(), source })
        };
        self.source.vars.iter().map(of).collect()
    }

    /// Gives states that have no value yet their first one, and checks the sizes of all
    /// variables.
    pub(super) fn ready(&self, values: &mut Values, expected: &[Vec<usize>]) -> Result<(), ProgramError> {
        for (decl, expected) in self.source.vars.iter().zip(expected) {
            match values.sizes(decl.id) {
                Some(sizes) if sizes == *expected => {}
                Some(sizes) => {
                    return Err(ProgramError::Variable {
                        name: decl.name.clone(),
                        shape: decl.ty.to_string(),
                        found: sizes.to_vec(),
                        expected: expected.clone(),
                    });
                }
                None if decl.kind == VarKind::State => {
                    if let Init::Table(values) = &decl.init
                        && values.len() != expected.iter().product::<usize>()
                    {
                        return Err(ProgramError::Variable {
                            name: decl.name.clone(),
                            shape: decl.ty.to_string(),
                            found: vec![values.len()],
                            expected: expected.clone(),
                        });
                    }
                    let data = match decl.ty.dtype {
                        DType::F32 => Data::F32(decl.init.fill(expected, Key::new(0, &decl.name))),
                        other => Data::zeros(other, expected.iter().product()),
                    };
                    values.insert(decl.id, Entry::new(decl.name.clone(), expected, data));
                }
                None => return Err(ProgramError::NoValue { name: decl.name.clone() }),
            }
        }
        Ok(())
    }

    /// Runs. `each` sees every output in order: its number, sizes and values.
    ///
    /// # Errors
    /// Arguments that do not fit, variables without a value, data that an operation refuses.
    pub fn run(&self, inputs: &[HostRef], mut each: impl FnMut(usize, &[usize], Out)) -> Result<(), ProgramError> {
        self.check_arguments(inputs)?;
        match self.device {
            Device::Cpu => self.run_cpu(inputs, &mut each, |_, task, m| (task.run)(m)),
            Device::Reference => self.run_reference(inputs, &mut each),
            Device::Cuda(_) | Device::Emulated => self.run_on_gpu(inputs, &mut each),
        }
    }

    /// Runs on the CPU. `step` runs each task, which is given its number.
    pub(super) fn run_cpu(
        &self,
        inputs: &[HostRef],
        each: &mut dyn FnMut(usize, &[usize], Out),
        step: impl FnMut(usize, &Task, &Memory) -> Result<(), String>,
    ) -> Result<(), ProgramError> {
        let mut kept = lock(&self.prepared);
        let mut values = self.store.lock();
        // Where nothing but this program has changed a value since its last run, nothing is to be done
        // for any: a step of a language model has some hundred.
        let mut settled = lock(&self.settled);
        let mut same = settled.take().is_some_and(|last| last == values.changed());
        if !same {
            // What a run stores to has values of its own; what it reads may be stored in fewer bits.
            for (var, _) in &self.optimized.updates {
                values.materialize(self.optimized.vars[*var as usize].id);
            }
            if self.weights.look(&self.optimized, &values) {
                kept.clear();
            }
        }
        let flat = || inputs.iter().flat_map(|i| i.sizes.iter().copied());
        match kept.sizes.iter().position(|p| p.given.iter().copied().eq(flat())) {
            Some(i) => {
                let last = kept.sizes.len() - 1;
                same &= i == last;
                kept.sizes[i..=last].rotate_left(1);
            }
            None => {
                same = false;
                let sizes = self.bind(inputs)?;
                let bound = cpu::bind_with(&self.optimized, &sizes, Some(&self.weights), self.alike)
                    .map_err(ProgramError::Lower)?;
                let result_sizes = self.result_sizes(&sizes)?;
                let vars = Vec::with_capacity(self.source.vars.len());
                let var_sizes = self.var_sizes(&sizes)?;
                kept.push(Prepared { given: flat().collect(), bound, var_sizes, vars, result_sizes });
            }
        }
        let Kept { sizes, arena } = &mut *kept;
        let Some(p) = sizes.last_mut() else { return Ok(()) };
        let complete = same || {
            self.ready(&mut values, &p.var_sizes)?;
            self.weights.refresh(&self.optimized, &values)
        };
        let Prepared { bound, vars, result_sizes, .. } = p;
        let mut taken = Taken { graph: &self.optimized, values: &mut values, vars };
        taken.take();
        let graph = &self.optimized;
        let plain = self.weights.plain();
        let vars = taken.vars.iter_mut().enumerate().map(|(var, data)| buffer(&plain, var, data));
        let externals = vars.chain(inputs.iter().map(HostRef::external));
        let mut taps = (!graph.taps.is_empty()).then(|| lock(&self.taps));
        let mut position = 0usize;
        let result = bound.run_with(
            arena,
            externals,
            |v| graph.ty(v).dtype,
            |v, out| {
                let sizes = &result_sizes[&v];
                match (position.checked_sub(graph.outputs.len()), &mut taps) {
                    (Some(tap), Some(taps)) => {
                        keep(graph, tap, Tapped { sizes: sizes.clone(), data: host::data(out) }, taps);
                    }
                    _ => each(position, sizes, out),
                }
                position += 1;
            },
            step,
        );
        drop(taken);
        *settled = complete.then(|| values.changed());
        result.map_err(|e| self.failure(graph, e.node, e.message))
    }

    pub(super) fn result_sizes(&self, sizes: &Sizes) -> Result<HashMap<Value, Vec<usize>>, BindError> {
        let graph = &self.optimized;
        graph
            .results()
            .map(|v| {
                let found = graph.ty(v).sizes(sizes);
                found.map(|s| (v, s)).map_err(|source| BindError::Extent { place: "a result".into(), source })
            })
            .collect()
    }

    pub(super) fn failure(&self, graph: &Graph, node: u32, message: String) -> ProgramError {
        match graph.nodes.get(node as usize) {
            Some(n) => ProgramError::Run { op: n.op.rule().name().into(), location: graph.location(n.scope), message },
            None => ProgramError::Lower(message),
        }
    }

    fn run_reference(
        &self,
        inputs: &[HostRef],
        each: &mut dyn FnMut(usize, &[usize], Out),
    ) -> Result<(), ProgramError> {
        let sizes = self.bind(inputs)?;
        let mut values = self.store.lock();
        self.ready(&mut values, &self.var_sizes(&sizes)?)?;
        let graph = &self.source;
        let all = reference_values(graph, &sizes, inputs, &values)?;
        let convert = |v: Value| {
            let array = all.get(v);
            (array.sizes.clone(), Data::from_f64(graph.ty(v).dtype, &array.data))
        };
        for (i, v) in graph.outputs.iter().enumerate() {
            let (sizes, data) = convert(*v);
            each(i, &sizes, out_of(&data));
        }
        for (i, (_, v)) in graph.taps.iter().enumerate() {
            let (sizes, data) = convert(*v);
            keep(graph, i, Tapped { sizes, data }, &mut lock(&self.taps));
        }
        for (var, v) in &graph.updates {
            let decl = &graph.vars[*var as usize];
            let array = all.get(*v);
            let data = match decl.ty.dtype {
                DType::F32 => Data::F64(array.data.clone()),
                other => Data::from_f64(other, &array.data),
            };
            values.insert(decl.id, Entry::new(decl.name.clone(), &array.sizes, data));
        }
        Ok(())
    }

    /// Runs without storing updates and looks for the first value that is not finite although
    /// everything it was computed from is.
    ///
    /// # Errors
    /// That value, as [`ProgramError::NonFinite`]; and what a run can fail with.
    pub fn check_finite(&self, inputs: &[HostRef]) -> Result<(), ProgramError> {
        self.check_arguments(inputs)?;
        let sizes = self.bind(inputs)?;
        let mut values = self.store.lock();
        self.ready(&mut values, &self.var_sizes(&sizes)?)?;
        let graph = &self.source;
        // Every real value of the unfused graph is a result.
        let mut all = graph.clone();
        all.updates.clear();
        all.taps.clear();
        all.printed.clear();
        all.outputs = (0..graph.nodes.len())
            .flat_map(|id| (0..graph.nodes[id].types.len()).map(move |p| Value { node: id as u32, port: p as u16 }))
            .filter(|v| graph.ty(*v).dtype == DType::F32)
            .collect();
        let mut finite: HashMap<Value, bool> = HashMap::new();
        let mut found: Option<NonFinite> = None;
        let mut look = |v: Value, sizes: Vec<usize>, values: &mut dyn Iterator<Item = f64>| {
            let node = graph.node(v);
            let (mut count, mut total, mut first) = (0, 0, None);
            for (i, x) in values.enumerate() {
                total += 1;
                if !x.is_finite() {
                    count += 1;
                    first.get_or_insert((i, x));
                }
            }
            finite.insert(v, count == 0);
            let Some((mut i, value)) = first else { return };
            let caused = node.inputs.iter().any(|u| finite.get(u) == Some(&false));
            if caused || found.is_some() || matches!(node.op, Op::Constant(_)) {
                return;
            }
            let what = match &node.op {
                Op::Input(op) => format!("argument `{}`", graph.inputs[op.index as usize].name),
                Op::Var(op) => format!("`{}`", graph.vars[op.index as usize].name),
                op => op.rule().name().into(),
            };
            let mut index = vec![0; sizes.len()];
            for (d, n) in sizes.iter().enumerate().rev() {
                index[d] = i % n;
                i /= n;
            }
            found = Some(NonFinite { what, location: graph.location(node.scope), count, total, index, value });
        };
        match self.device {
            Device::Reference => {
                let results = reference_values(&all, &sizes, inputs, &values)?;
                for v in &all.outputs {
                    let array = results.get(*v);
                    look(*v, array.sizes.clone(), &mut array.data.iter().copied());
                }
            }
            // What a GPU computes is looked for on the CPU, on the same values.
            Device::Cpu | Device::Cuda(_) | Device::Emulated => {
                let mut bound = cpu::bind(&all, &sizes).map_err(ProgramError::Lower)?;
                let mut vars = vec![];
                let mut taken = Taken { graph: &all, values: &mut values, vars: &mut vars };
                taken.take();
                // Every value is read as it is.
                let mut dense: Vec<Data> = taken.vars.iter().map(|data| data.dense().into_owned()).collect();
                let externals = dense.iter_mut().map(host::external).chain(inputs.iter().map(HostRef::external));
                let each = |v: Value, out: Out| {
                    if let (Out::F32(s), Ok(sizes)) = (out, all.ty(v).sizes(&sizes)) {
                        look(v, sizes, &mut s.iter().map(|x| *x as f64));
                    }
                };
                let mut arena = Arena::new(bound.arena_bytes());
                let result = bound.run(&mut arena, externals, |v| all.ty(v).dtype, each);
                result.map_err(|e| self.failure(&all, e.node, e.message))?;
            }
        }
        found.map_or(Ok(()), |e| Err(e.into()))
    }
}

fn reference_values(
    graph: &Graph,
    sizes: &Sizes,
    inputs: &[HostRef],
    values: &Values,
) -> Result<reference::Values, ProgramError> {
    let inputs: Vec<RefArray> = inputs.iter().map(|i| RefArray::new(i.sizes, i.to_f64())).collect();
    let vars: Option<Vec<RefArray>> =
        graph.vars.iter().map(|d| values.get(d.id).map(|e| RefArray::new(&e.sizes, e.data.to_f64()))).collect();
    let vars = vars.unwrap_or_default();
    reference::run(graph, sizes, &inputs, &vars).map_err(ProgramError::Lower)
}

/// A variable's buffer for a run: what was made of it, or its own values.
fn buffer<'a>(plain: &'a [(u32, Plain)], var: usize, data: &'a mut Data) -> External<'a> {
    match plain.iter().find(|(slot, _)| *slot as usize == var) {
        Some((_, values)) => External::ReadF32(values),
        None => host::external(data),
    }
}

/// Keeps what a tap saw, and prints it if that was asked for.
pub(super) fn keep(graph: &Graph, tap: usize, tapped: Tapped, taps: &mut HashMap<String, Tapped>) {
    let (name, value) = &graph.taps[tap];
    if graph.printed.contains(name) {
        let names: Vec<&'static str> = graph.ty(*value).dims.iter().map(|d| d.axis.name).collect();
        let picture = Picture { label: name, names: &names, sizes: &tapped.sizes, data: &tapped.data };
        eprintln!("{picture:?}");
    }
    taps.insert(name.clone(), tapped);
}

fn out_of(data: &Data) -> Out<'_> {
    match data {
        Data::F32(v) => Out::F32(v),
        Data::I32(v) => Out::I32(v),
        Data::Bool(v) => Out::Bool(v),
        Data::F64(_) | Data::Encoded(_) => Out::F32(&[]),
    }
}
