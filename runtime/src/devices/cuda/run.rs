//! A program with its sizes, ready to run on a GPU.

use super::lower::{ALIGN, Bases, Guard, Lower, Reads, Step, leave_out, slot_of};
use super::{Fallback, Variable};
use crate::devices::cpu::{Out, TaskError};
use crate::devices::lower::Emit;
use crate::devices::plan::{Life, Plan, plan};
use crate::graph::{DType, Graph, Value};
use crate::program::host::{HostRef, HostSlice};
use mobilis_cuda::{Arg, Buffer, CudaError, Gpu, Launch, Ptr, Recorded};
use std::collections::HashMap;
use std::sync::Arc;

/// A program with its sizes: launches, their memory, where results lie.
pub struct Bound {
    gpu: Gpu,
    /// The arena, then arguments, then what is fixed.
    memory: Buffer,
    arena_bytes: usize,
    /// The addresses of all slots; those of variables are of the last run.
    bases: Bases,
    variables: usize,
    /// What it reads of each variable.
    pub reads: Vec<Reads>,
    guards: Vec<Guard>,
    steps: Vec<(u32, Step)>,
    /// Launches that follow each other, with real addresses.
    parts: Vec<Part>,
    results: Vec<(Value, Ptr, DType, usize)>,
    /// Bytes that the arena would need if every byte alive at once were packed perfectly.
    pub lower_bound: usize,
    /// Bytes of all places that launches are given, once a launch, added up.
    pub moved: usize,
    /// How many values are copied because no kernel reads them as they lie.
    pub copied: usize,
    /// What runs on the host.
    pub fallbacks: Vec<Fallback>,
}

/// Steps from one that runs on the host to the next.
struct Part {
    first: usize,
    end: usize,
    launches: Vec<Launch>,
    runs: u32,
    recorded: Option<Recorded>,
}

fn round(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Plans memory and asks for it.
pub(super) fn finish(mut cx: Lower) -> Result<Bound, String> {
    let found = cx.settle();
    let graph = cx.graph;
    let results: Vec<(Value, Ptr, DType, usize)> = found
        .into_iter()
        .map(|(v, piece)| {
            let dtype = graph.ty(v).dtype;
            (v, cx.at(piece, dtype), dtype, piece.len)
        })
        .collect();
    let mut spare = std::mem::take(&mut cx.spare);
    spare.retain(|(_, at)| slot_of(*at).is_some_and(|slot| cx.is_buffer(slot)));
    let shown: Vec<Ptr> = results.iter().map(|r| r.1).collect();
    for slot in leave_out(&mut cx.steps, &spare, &shown) {
        cx.forget(slot);
    }
    // Every place is a multiple of `ALIGN` if every size is.
    let lives: Vec<Life> = cx.lives.iter().map(|l| Life { bytes: round(l.bytes), ..l.clone() }).collect();
    let plan = plan(&lives);
    let arguments: Vec<usize> = (0..graph.inputs.len()).map(|i| round(cx.argument_bytes(i))).collect();
    let before: usize = round(plan.total);
    let fixed_at = before + arguments.iter().sum::<usize>();
    let total = fixed_at + round(cx.fixed.len());
    let memory = cx.gpu.alloc(total).map_err(|e| match e {
        CudaError::OutOfMemory { asked, free, total, .. } => {
            let wanted_for = too_large(graph, &lives, &plan);
            CudaError::OutOfMemory { asked, free, total, wanted_for }.to_string()
        }
        other => other.to_string(),
    })?;
    let base = memory.ptr();
    let mut bases = vec![Ptr::NULL; graph.vars.len()];
    let mut at = before;
    for bytes in arguments {
        bases.push(base.at(at));
        at += bytes;
    }
    bases.extend(plan.places.iter().map(|(offset, _)| base.at(*offset)));
    let bases = Bases { slots: bases, stored: vec![Ptr::NULL; graph.vars.len()], fixed: base.at(fixed_at) };
    cx.gpu.write(bases.fixed, &cx.fixed).map_err(|e| e.to_string())?;
    let moved = moved(&cx, &bases);
    Ok(Bound {
        gpu: cx.gpu.clone(),
        memory,
        arena_bytes: plan.total,
        bases,
        variables: graph.vars.len(),
        reads: cx.reads.into_inner(),
        guards: cx.guards,
        steps: cx.steps,
        parts: vec![],
        results,
        lower_bound: plan.lower_bound,
        moved,
        copied: cx.copied,
        fallbacks: cx.fallbacks,
    })
}

/// The bytes of all places that each launch is given, once a launch, added up: what is read and written if caches keep
/// nothing from one launch to the next and every launch goes once over all of what it is given. Of places of which it
/// sees a part, all is counted; constants are not.
fn moved(cx: &Lower, bases: &Bases) -> usize {
    let mut known: HashMap<u32, usize> = HashMap::new();
    let mut step = |step: &Step| {
        let mut seen: Vec<u32> = vec![];
        step.each_slot(|slot| seen.push(slot));
        seen.sort_unstable();
        seen.dedup();
        match step {
            Step::Copy { from, to, .. } if bases.real(*from) == bases.real(*to) => 0,
            Step::Copy { bytes, .. } => 2 * bytes,
            Step::Fill { bytes, .. } => *bytes,
            Step::Launch(_) | Step::Host(_) => {
                seen.into_iter().map(|slot| *known.entry(slot).or_insert_with(|| cx.slot_bytes(slot))).sum::<usize>()
            }
        }
    };
    cx.steps.iter().map(|s| step(&s.1)).sum()
}

/// What a plan that does not fit holds where it is fullest.
fn too_large(graph: &Graph, lives: &[Life], plan: &Plan) -> String {
    let at = |time: usize| lives.iter().enumerate().filter(move |l| l.1.first <= time && time <= l.1.last);
    let used = |time: usize| at(time).map(|l| l.1.bytes).sum::<usize>();
    let fullest = (0..graph.nodes.len()).max_by_key(|t| used(*t)).unwrap_or(0);
    let mut largest: Vec<(usize, usize)> = at(fullest).map(|(_, l)| (l.bytes, l.first)).collect();
    largest.sort_by_key(|(bytes, first)| (std::cmp::Reverse(*bytes), *first));
    let name = |id: usize| match graph.nodes.get(id) {
        Some(node) => format!("{} in {}", node.op.rule().name(), graph.location(node.scope)),
        None => "the end".into(),
    };
    let parts = largest.iter().take(4).map(|(bytes, first)| format!("{bytes} of {}", name(*first)));
    format!(
        "the program's plan takes {} bytes; at {} it holds {}",
        plan.total,
        name(fullest),
        parts.collect::<Vec<_>>().join(", ")
    )
}

impl Bound {
    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Runs it on the variables' values on the device and on arguments from the host. `each` sees every result
    /// when all is done.
    ///
    /// # Errors
    /// What an operation refuses, and failures of the device, after which it gives no results.
    pub fn run(
        &mut self,
        variables: &[Arc<Variable>],
        arguments: &[HostRef],
        mut each: impl FnMut(Value, Out),
    ) -> Result<(), TaskError> {
        // No node: the device itself.
        let failed = |e: CudaError| TaskError { node: u32::MAX, message: e.to_string() };
        let plain: Vec<Ptr> = variables.iter().map(|v| v.plain()).collect();
        let stored: Vec<Ptr> = variables.iter().map(|v| v.stored()).collect();
        if self.parts.is_empty() || self.bases.slots[..self.variables] != plain || self.bases.stored != stored {
            self.bases.slots[..self.variables].copy_from_slice(&plain);
            self.bases.stored = stored;
            self.parts = self.relocated();
        }
        for (argument, to) in arguments.iter().zip(&self.bases.slots[self.variables..]) {
            match argument.values {
                HostSlice::F32(values) => self.gpu.write(*to, values),
                HostSlice::I32(values) => self.gpu.write(*to, values),
                HostSlice::Bool(values) => self.gpu.write(*to, &values.iter().map(|v| *v as u8).collect::<Vec<u8>>()),
            }
            .map_err(failed)?;
        }
        for part in 0..self.parts.len() {
            self.run_part(part)?;
            // The host's node that ends the part.
            let end = self.parts[part].end;
            if let Some((node, Step::Host(host))) = self.steps.get_mut(end) {
                let result = host.run(&self.gpu, |at| self.bases.real(at));
                result.map_err(|message| TaskError { node: *node, message })?;
            }
        }
        self.check_guards()?;
        for (value, at, dtype, count) in &self.results {
            let at = self.bases.real(*at);
            match dtype {
                DType::F32 => {
                    let mut values = vec![0.0; *count];
                    self.gpu.read(at, &mut values).map_err(failed)?;
                    each(*value, Out::F32(&values));
                }
                DType::I32 => {
                    let mut values = vec![0; *count];
                    self.gpu.read(at, &mut values).map_err(failed)?;
                    each(*value, Out::I32(&values));
                }
                DType::Bool => {
                    let mut values = vec![0; *count];
                    self.gpu.read(at, &mut values).map_err(failed)?;
                    each(*value, Out::Bool(&values));
                }
            }
        }
        self.gpu.synchronize().map_err(failed)
    }

    /// The steps with real addresses, cut where the host is needed.
    fn relocated(&self) -> Vec<Part> {
        let bases = &self.bases;
        let mut parts = vec![];
        let mut first = 0;
        loop {
            let host = |s: &(u32, Step)| matches!(s.1, Step::Host(_));
            let end = self.steps[first..].iter().position(host).map_or(self.steps.len(), |n| first + n);
            let launches = self.steps[first..end].iter().filter_map(|(_, step)| match step {
                Step::Launch(launch) => {
                    let mut launch = launch.clone();
                    for arg in &mut launch.args {
                        match arg {
                            Arg::Ptr(at) => *at = bases.real(*at),
                            Arg::Tile(tile) => tile.base = bases.real(tile.base),
                            Arg::Table(table) => table.iter_mut().for_each(|at| *at = bases.real(*at)),
                            _ => {}
                        }
                    }
                    Some(launch)
                }
                _ => None,
            });
            parts.push(Part { first, end, launches: launches.collect(), runs: 0, recorded: None });
            if end == self.steps.len() {
                return parts;
            }
            first = end + 1;
        }
    }

    fn run_part(&mut self, part: usize) -> Result<(), TaskError> {
        let Bound { gpu, parts, steps, bases, .. } = self;
        let part = &mut parts[part];
        let steps = &steps[part.first..part.end];
        if steps.is_empty() {
            return Ok(());
        }
        let mut node = u32::MAX;
        let mut once = |launches: &[Launch]| -> Result<(), CudaError> {
            let mut launches = launches.iter();
            for (at, step) in steps {
                node = *at;
                match step {
                    Step::Launch(_) => launches.next().map_or(Ok(()), |l| gpu.run(std::slice::from_ref(l)))?,
                    Step::Copy { from, to, bytes } => {
                        gpu.copy(bases.real(*from), bases.real(*to), *bytes)?;
                    }
                    Step::Fill { to, byte, bytes } => gpu.fill(bases.real(*to), *byte, *bytes)?,
                    Step::Host(_) => {}
                }
            }
            Ok(())
        };
        part.runs = part.runs.saturating_add(1);
        // The first run loads kernels; what comes back is worth recording.
        let result = match &part.recorded {
            Some(recorded) => recorded.replay(),
            None if part.runs == 2 => gpu.record(|| once(&part.launches)).and_then(|recorded| {
                part.recorded = recorded;
                match &part.recorded {
                    Some(recorded) => recorded.replay(),
                    None => once(&part.launches),
                }
            }),
            None => once(&part.launches),
        };
        result.map_err(|e| TaskError { node, message: e.to_string() })
    }

    /// Whether a kernel has refused its data.
    fn check_guards(&mut self) -> Result<(), TaskError> {
        let failed = |e: CudaError| TaskError { node: u32::MAX, message: e.to_string() };
        let (Some(first), Some(last)) = (self.guards.first(), self.guards.last()) else { return Ok(()) };
        let mut words = vec![0i32; (last.offset + 16 - first.offset) / 4];
        self.gpu.read(self.bases.fixed.at(first.offset), &mut words).map_err(failed)?;
        let word = |guard: &Guard| (guard.offset - first.offset) / 4;
        let Some(guard) = self.guards.iter().find(|g| words[word(g)] != 0) else { return Ok(()) };
        let i = word(guard);
        let message = (guard.message)([words[i], words[i + 1], words[i + 2], words[i + 3]]);
        for guard in &self.guards {
            self.gpu.fill(self.bases.fixed.at(guard.offset), 0, 16).map_err(failed)?;
        }
        Err(TaskError { node: guard.node, message })
    }

    /// The kernels that it launches, in order.
    pub fn kernels(&self) -> Vec<&'static str> {
        let launches = self.steps.iter().filter_map(|(_, step)| match step {
            Step::Launch(launch) => Some(launch.kernel),
            _ => None,
        });
        launches.collect()
    }

    /// Bytes that it holds on the device.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}
