//! Running on a GPU: programs by sizes, and variables that stay on the device.

use super::ProgramError;
use super::executable::{Executable, Tapped, keep, lock};
use super::host::{self, HostRef};
use super::kept::PREPARED;
use super::weights::{StoredWeight, WeightFormat};
use crate::devices::cpu::Out;
use crate::devices::cuda::lower::Reads;
use crate::devices::cuda::{self, Bound, Fallback, Variable};
use crate::graph::{Graph, Value, VarDecl};
use crate::module::encoded::Encoding;
use crate::module::store::Values;
use mobilis_cuda::{CudaError, Gpu};
use mobilis_kernels::cpu::quant::Blocks;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

struct Prepared {
    given: Vec<usize>,
    /// How variables are stored that are not `f32`: products read some as they are.
    encodings: Vec<Option<Encoding>>,
    bound: Bound,
    var_sizes: Vec<Vec<usize>>,
    result_sizes: HashMap<Value, Vec<usize>>,
}

/// What was prepared, by sizes; the last used is the last.
#[derive(Default)]
pub(super) struct Programs(Mutex<Vec<Prepared>>);

impl Programs {
    pub(super) fn memory(&self) -> Option<(usize, usize)> {
        lock(&self.0).last().map(|p| (p.bound.arena_bytes(), p.bound.lower_bound))
    }

    pub(super) fn moved(&self) -> Option<usize> {
        lock(&self.0).last().map(|p| p.bound.moved)
    }

    pub(super) fn copies(&self) -> Option<usize> {
        lock(&self.0).last().map(|p| p.bound.copied)
    }

    /// The weights that products read as the model stores them.
    pub(super) fn weights(&self, graph: &Graph) -> Vec<StoredWeight> {
        let prepared = lock(&self.0);
        let Some(p) = prepared.last() else { return vec![] };
        let all = graph.vars.iter().zip(&p.var_sizes).zip(&p.encodings).zip(&p.bound.reads);
        let found = all.filter_map(|(((decl, sizes), encoding), reads)| {
            let encoding = (*encoding).filter(|_| reads.stored)?;
            let (values, channels) = sizes.split_last()?;
            let format = match encoding {
                Encoding::Bf16 => WeightFormat::Bf16,
                Encoding::F16 => WeightFormat::F16,
                Encoding::Blocks(Blocks::Q8_0) => WeightFormat::Q8_0,
                Encoding::Blocks(Blocks::Q4_0) => WeightFormat::Q4_0,
                Encoding::Blocks(_) => WeightFormat::Stored,
            };
            let size = (channels.iter().product(), *values);
            let bytes = encoding.bytes(size.0 * size.1).unwrap_or_default();
            Some(StoredWeight { name: decl.name.clone(), format, encoding: Some(encoding), size, bytes })
        });
        let mut found: Vec<StoredWeight> = found.collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    pub(super) fn kernels(&self) -> Vec<&'static str> {
        lock(&self.0).last().map(|p| p.bound.kernels()).unwrap_or_default()
    }

    pub(super) fn fallbacks(&self) -> Vec<Fallback> {
        lock(&self.0).last().map(|p| p.bound.fallbacks.clone()).unwrap_or_default()
    }
}

impl Executable {
    pub(super) fn run_on_gpu(
        &self,
        inputs: &[HostRef],
        each: &mut dyn FnMut(usize, &[usize], Out),
    ) -> Result<(), ProgramError> {
        let gpu = cuda::open(self.device()).map_err(ProgramError::Lower)?;
        let mut prepared = lock(&self.on_gpu.0);
        let mut values = self.store.lock();
        let graph = &self.optimized;
        for (var, _) in &graph.updates {
            values.materialize(graph.vars[*var as usize].id);
        }
        let encodings: Vec<Option<Encoding>> = graph.vars.iter().map(|decl| values.encoding(decl.id)).collect();
        prepared.retain(|p| p.encodings == encodings);
        let flat = || inputs.iter().flat_map(|i| i.sizes.iter().copied());
        match prepared.iter().position(|p| p.given.iter().copied().eq(flat())) {
            Some(i) => prepared[i..].rotate_left(1),
            None => {
                let sizes = self.bind(inputs)?;
                let (var_sizes, result_sizes) = (self.var_sizes(&sizes)?, self.result_sizes(&sizes)?);
                if prepared.len() == PREPARED {
                    prepared.remove(0);
                }
                let bound = cuda::bind(&gpu, graph, &sizes, &encodings).map_err(ProgramError::Lower)?;
                prepared.push(Prepared { given: flat().collect(), encodings, bound, var_sizes, result_sizes });
            }
        }
        let Some(p) = prepared.last_mut() else { return Ok(()) };
        self.ready(&mut values, &p.var_sizes)?;
        let reads = graph.vars.iter().zip(&p.bound.reads);
        let variables: Result<Vec<_>, _> =
            reads.map(|(decl, reads)| variable(&gpu, &mut values, decl, *reads)).collect();
        let variables = variables?;
        let Prepared { bound, result_sizes, .. } = p;
        let mut taps = (!graph.taps.is_empty()).then(|| lock(&self.taps));
        let mut position = 0usize;
        let result = bound.run(&variables, inputs, |v, out| {
            let sizes = &result_sizes[&v];
            match (position.checked_sub(graph.outputs.len()), &mut taps) {
                (Some(tap), Some(taps)) => {
                    keep(graph, tap, Tapped { sizes: sizes.clone(), data: host::data(out) }, taps);
                }
                _ => each(position, sizes, out),
            }
            position += 1;
        });
        // What the run wrote to has changed, whether it came to its end or not.
        for (var, _) in &graph.updates {
            values.changed_on_device(graph.vars[*var as usize].id);
        }
        result.map_err(|e| self.failure(graph, e.node, e.message))
    }
}

/// A variable's values on the device: the copy that is there, or a new one.
fn variable(gpu: &Gpu, values: &mut Values, decl: &VarDecl, reads: Reads) -> Result<Arc<Variable>, ProgramError> {
    let known = values.on_device(decl.id).map(|(copy, current)| (Arc::clone(copy), current));
    let known = known.and_then(|(copy, current)| {
        let copy: Arc<dyn Any + Send + Sync> = copy;
        Some((copy.downcast::<Variable>().ok()?, current))
    });
    if let Some((copy, true)) = &known
        && copy.on(gpu)
        && copy.has(reads)
    {
        return Ok(Arc::clone(copy));
    }
    let failed = |e: CudaError| {
        ProgramError::Lower(match e {
            CudaError::OutOfMemory { asked, free, total, .. } => {
                let wanted_for = format!("the values of `{}` {}", decl.name, decl.ty);
                CudaError::OutOfMemory { asked, free, total, wanted_for }.to_string()
            }
            e => format!("`{}`: {e}", decl.name),
        })
    };
    let Some(entry) = values.get(decl.id) else { return Err(ProgramError::NoValue { name: decl.name.clone() }) };
    let copy = match known {
        Some((copy, true)) if copy.on(gpu) => copy,
        Some((copy, _)) if copy.fits(gpu, &entry.data) => {
            copy.write(&entry.data).map_err(failed)?;
            copy
        }
        _ => Arc::new(Variable::new(gpu, &entry.data)),
    };
    copy.bring(&entry.data, reads).map_err(failed)?;
    values.keep_on_device(decl.id, copy.clone());
    Ok(copy)
}
