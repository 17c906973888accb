//! Checks that every operation's tests use: reference values, finite differences, devices
//! against each other. Public so that tests of other crates can use them; not part of the API.

#[cfg(feature = "cuda")]
use crate::devices::Device;
use crate::devices::cpu;
use crate::devices::reference::{self, RefArray};
use crate::graph::trace::{self, Handle, Mode};
use crate::graph::{DType, Dim, Graph, Sizes, TensorType, Value};
use crate::transforms::grad::grad;
use crate::transforms::prune::prune;
use mobilis_kernels::memory::{Arena, External};

/// Relative error allowed between a gradient and central differences in `f64`.
pub const GRADIENT: f64 = 1e-6;

/// A test's input: sizes, storage, values.
#[derive(Clone, Debug)]
pub struct Given {
    /// The array.
    pub array: RefArray,
    /// Its storage.
    pub dtype: DType,
}

impl Given {
    /// Real values rounded to `f32`.
    #[must_use]
    pub fn rounded(&self) -> Given {
        let mut out = self.clone();
        out.array.data.iter_mut().for_each(|v| *v = *v as f32 as f64);
        out
    }
}

/// Real values that are reproducible, distinct and in about -1 to 1, away from 0 and from ties.
pub fn real(sizes: &[usize], seed: u64) -> Given {
    let n: usize = sizes.iter().product();
    let data = (0..n).map(|i| noise(seed, i as u64)).map(|v| v + 0.01 * v.signum()).collect();
    Given { array: RefArray::new(sizes, data), dtype: DType::F32 }
}

/// Positive real values in 0.1 to 2.1.
pub fn positive(sizes: &[usize], seed: u64) -> Given {
    let mut given = real(sizes, seed);
    given.array.data.iter_mut().for_each(|v| *v = v.abs() * 2.0 + 0.1);
    given
}

/// Given real values.
pub fn values(sizes: &[usize], data: &[f64]) -> Given {
    Given { array: RefArray::new(sizes, data.to_vec()), dtype: DType::F32 }
}

/// Indices in `0..bound`.
pub fn indices(sizes: &[usize], bound: usize, seed: u64) -> Given {
    let n: usize = sizes.iter().product();
    let data = (0..n).map(|i| ((noise(seed, i as u64) * 0.5 + 0.5) * bound as f64).floor().min(bound as f64 - 1.0));
    Given { array: RefArray::new(sizes, data.collect()), dtype: DType::I32 }
}

/// Given indices.
pub fn index_values(sizes: &[usize], data: &[i64]) -> Given {
    Given { array: RefArray::new(sizes, data.iter().map(|v| *v as f64).collect()), dtype: DType::I32 }
}

/// A mask in which about two of three are true.
pub fn mask(sizes: &[usize], seed: u64) -> Given {
    let n: usize = sizes.iter().product();
    let data = (0..n).map(|i| (noise(seed, i as u64) > -0.33) as u8 as f64).collect();
    Given { array: RefArray::new(sizes, data), dtype: DType::Bool }
}

/// Uniform in -1..1, a function of its arguments (SplitMix64).
pub fn noise(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((i + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Traces `f` over inputs of anonymous static dimensions.
///
/// # Panics
/// When tracing fails.
pub fn traced(given: &[Given], f: impl FnOnce(&[Handle]) -> Vec<Handle>) -> Graph {
    try_traced(given, f).unwrap_or_else(|e| panic!("{e}"))
}

/// Traces `f` over inputs of anonymous static dimensions.
pub fn try_traced(given: &[Given], f: impl FnOnce(&[Handle]) -> Vec<Handle>) -> Result<Graph, trace::TraceError> {
    let (graph, ()) = trace::trace(None, Mode::Train, &|_| false, || {
        let handles: Vec<Handle> = given
            .iter()
            .enumerate()
            .map(|(i, g)| {
                let dims = g.array.sizes.iter().map(|n| Dim::fixed(*n as u64)).collect();
                trace::input(format!("argument {}", i + 1), TensorType::new(dims, g.dtype), "")
            })
            .collect();
        f(&handles).into_iter().for_each(trace::output);
    })?;
    Ok(graph)
}

/// The results of `f` on the reference device.
///
/// # Panics
/// When tracing or running fails.
pub fn evaluate(given: &[Given], f: impl FnOnce(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    let graph = traced(given, f);
    outputs(&graph, given)
}

fn outputs(graph: &Graph, given: &[Given]) -> Vec<RefArray> {
    let inputs: Vec<RefArray> = given.iter().map(|g| g.array.clone()).collect();
    let values = reference::run(graph, &Sizes::new(), &inputs, &[]).unwrap_or_else(|e| panic!("{e}"));
    graph.outputs.iter().map(|v| values.get(*v).clone()).collect()
}

/// Asserts that two arrays agree within `tolerance` relative to the largest value.
///
/// # Panics
/// When they do not.
pub fn close(found: &RefArray, expected: &RefArray, tolerance: f64) {
    assert_eq!(found.sizes, expected.sizes, "sizes differ");
    let scale = expected.data.iter().filter(|v| v.is_finite()).fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in found.data.iter().zip(&expected.data).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * scale;
        assert!(same, "value {i}: {a} is not {b} (tolerance {tolerance:e} of {scale})\n{found:?}\n{expected:?}");
    }
}

/// Checks an operation: its gradient by every real input against central differences on the
/// reference device, and every other device against the reference, for the results and for
/// the gradients. With the feature `cuda` the emulated GPU is one of them, for graphs of up to some
/// ten thousand values, and for one of four that have chains, of which each is compiled for itself;
/// `MOBILIS_EMULATE=all` takes all graphs, `none` leaves it out.
///
/// # Panics
/// When anything disagrees.
pub fn check(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) {
    check_gradient(given, &f);
    check_cpu(given, &f, CPU);
}

/// Relative error allowed between the CPU's `f32` and the reference device.
pub const CPU: f64 = 2e-5;

/// The other half of [`check`]: results and gradients on the CPU against the reference device,
/// fused and unfused.
///
/// # Panics
/// When they disagree by more than `tolerance` of the largest value.
pub fn check_cpu(given: &[Given], f: &dyn Fn(&[Handle]) -> Vec<Handle>, tolerance: f64) {
    check_devices(given, f, [tolerance; 2]);
}

/// [`check_cpu`] with one tolerance for the CPU and another for GPUs.
///
/// # Panics
/// When they disagree by more than their tolerance of the largest value.
pub fn check_devices(given: &[Given], f: &dyn Fn(&[Handle]) -> Vec<Handle>, tolerances: [f64; 2]) {
    let forward = traced(given, f);
    compare(&forward, given, tolerances);
    if given.iter().any(|g| g.dtype == DType::F32) {
        compare(&with_gradients(given, f).0, given, tolerances);
    }
}

/// The results of `f`, the same on every device: [`evaluate`] and the forward half of
/// [`check_cpu`].
///
/// # Panics
/// When they disagree by more than `tolerance` of the largest value.
pub fn agree(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>, tolerance: f64) -> Vec<RefArray> {
    compare(&traced(given, &f), given, [tolerance; 2]);
    evaluate(given, f)
}

/// `tolerances` are the CPU's and that of GPUs.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "no GPU is compared"))]
fn compare(graph: &Graph, given: &[Given], [on_cpu, on_gpu]: [f64; 2]) {
    // The reference sees the inputs as the CPU does, rounded to f32.
    let rounded: Vec<Given> = given.iter().map(Given::rounded).collect();
    let expected = outputs(graph, &rounded);
    for graph in [graph.clone(), cpu::optimize(graph.clone())] {
        for (found, expected) in outputs_on_cpu(&graph, &rounded).iter().zip(&expected) {
            close(found, expected, on_cpu);
        }
        #[cfg(feature = "cuda")]
        gpu::compare(&graph, &rounded, &expected, on_gpu);
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::{DType, Device, Given, Graph, RefArray, Sizes, Value, close};
    use crate::devices::{cpu, cuda};
    use crate::ops::Op;
    use crate::program::host::{HostRef, HostSlice};
    use std::collections::hash_map::DefaultHasher;
    use std::hash::{Hash, Hasher};
    use std::sync::LazyLock;

    /// Values of a graph's nodes at most, unless all are asked for.
    const MOST: usize = 20_000;

    /// One of so many graphs with chains, unless all are asked for.
    const OF: u64 = 4;

    static ASKED: LazyLock<String> = LazyLock::new(|| std::env::var("MOBILIS_EMULATE").unwrap_or_default());

    /// Whether a graph's chains are left to others: the same graphs in every run.
    fn passed_over(graph: &Graph) -> bool {
        let mut hash = DefaultHasher::new();
        format!("{:?}", graph.nodes).hash(&mut hash);
        graph.nodes.iter().any(|n| matches!(n.op, Op::Chain(_))) && !hash.finish().is_multiple_of(OF)
    }

    /// Compares the emulated GPU's results, where there is one and the graph is small enough.
    pub fn compare(graph: &Graph, given: &[Given], expected: &[RefArray], tolerance: f64) {
        let count = |ty: &super::TensorType| ty.sizes(&Sizes::new()).map_or(0, |s| s.iter().product());
        let values: usize = graph.nodes.iter().flat_map(|n| &n.types).map(count).sum();
        if *ASKED == "none" || (*ASKED != "all" && (values > MOST || passed_over(graph))) {
            return;
        }
        let gpu = match cuda::open(Device::Emulated) {
            Ok(gpu) => gpu,
            Err(e) => return eprintln!("not compared with the emulated GPU: {e}"),
        };
        let reals: Vec<Vec<f32>> = given.iter().map(|g| g.array.data.iter().map(|v| *v as f32).collect()).collect();
        let wholes: Vec<Vec<i32>> = given.iter().map(|g| g.array.data.iter().map(|v| *v as i32).collect()).collect();
        let truths: Vec<Vec<bool>> = given.iter().map(|g| g.array.data.iter().map(|v| *v != 0.0).collect()).collect();
        let arguments: Vec<HostRef> = (0..given.len())
            .map(|i| HostRef {
                sizes: &given[i].array.sizes,
                values: match given[i].dtype {
                    DType::F32 => HostSlice::F32(&reals[i]),
                    DType::I32 => HostSlice::I32(&wholes[i]),
                    DType::Bool => HostSlice::Bool(&truths[i]),
                },
            })
            .collect();
        let mut bound = cuda::bind(&gpu, graph, &Sizes::new(), &[]).unwrap_or_else(|e| panic!("{e}"));
        let mut results = vec![];
        let each = |v: Value, out: cpu::Out| {
            let data: Vec<f64> = match out {
                cpu::Out::F32(s) => s.iter().map(|v| *v as f64).collect(),
                cpu::Out::I32(s) => s.iter().map(|v| *v as f64).collect(),
                cpu::Out::Bool(s) => s.iter().map(|v| *v as f64).collect(),
            };
            let sizes = graph.ty(v).sizes(&Sizes::new()).expect("the sizes are static");
            results.push(RefArray::new(&sizes, data));
        };
        bound.run(&[], &arguments, each).unwrap_or_else(|e| panic!("{}", e.message));
        for (found, expected) in results.iter().zip(expected) {
            close(found, expected, tolerance);
        }
    }
}

pub(crate) fn outputs_on_cpu(graph: &Graph, given: &[Given]) -> Vec<RefArray> {
    let mut bound = cpu::bind(graph, &Sizes::new()).unwrap_or_else(|e| panic!("{e}"));
    let reals: Vec<Vec<f32>> = given.iter().map(|g| g.array.data.iter().map(|v| *v as f32).collect()).collect();
    let wholes: Vec<Vec<i32>> = given.iter().map(|g| g.array.data.iter().map(|v| *v as i32).collect()).collect();
    let truths: Vec<Vec<bool>> = given.iter().map(|g| g.array.data.iter().map(|v| *v != 0.0).collect()).collect();
    let externals = (0..given.len()).map(|i| match given[i].dtype {
        DType::F32 => External::ReadF32(&reals[i]),
        DType::I32 => External::ReadI32(&wholes[i]),
        DType::Bool => External::ReadBool(&truths[i]),
    });
    let mut results = vec![];
    let each = |v: Value, out: cpu::Out| {
        let data: Vec<f64> = match out {
            cpu::Out::F32(s) => s.iter().map(|v| *v as f64).collect(),
            cpu::Out::I32(s) => s.iter().map(|v| *v as f64).collect(),
            cpu::Out::Bool(s) => s.iter().map(|v| *v as f64).collect(),
        };
        let sizes = graph.ty(v).sizes(&Sizes::new()).expect("the sizes are static");
        results.push(RefArray::new(&sizes, data));
    };
    let mut arena = Arena::new(bound.arena_bytes());
    bound.run(&mut arena, externals, |v| graph.ty(v).dtype, each).unwrap_or_else(|e| panic!("{}", e.message));
    results
}

/// The gradient half of [`check`].
///
/// # Panics
/// When the gradient disagrees with finite differences.
pub fn check_gradient(given: &[Given], f: &dyn Fn(&[Handle]) -> Vec<Handle>) {
    let (graph, wrt) = with_gradients(given, f);
    let found = outputs(&graph, given);
    // Of thousands of losses nobody needs the gradients.
    let mut loss_alone = graph;
    loss_alone.outputs.truncate(1);
    let loss_alone = prune(loss_alone);
    for (k, input) in wrt.iter().enumerate() {
        let mut expected = RefArray::filled(&given[*input].array.sizes, 0.0);
        for i in 0..expected.data.len() {
            let loss = |h: f64| {
                let mut moved = given.to_vec();
                moved[*input].array.data[i] += h;
                outputs(&loss_alone, &moved)[0].data[0]
            };
            // Fourth-order central differences.
            let h = 1e-3;
            expected.data[i] = (8.0 * (loss(h) - loss(-h)) - (loss(2.0 * h) - loss(-2.0 * h))) / (12.0 * h);
        }
        close(&found[k + 1], &expected, GRADIENT);
    }
}

/// A graph whose outputs are a loss (a fixed weighting of all real results of `f`) and its
/// gradients by every real input; and the positions of those inputs.
pub fn with_gradients(given: &[Given], f: &dyn Fn(&[Handle]) -> Vec<Handle>) -> (Graph, Vec<usize>) {
    use crate::ops::{elementwise as ew, leaf, reduce};
    let mut graph = traced(given, |inputs| {
        let mut loss = leaf::scalar(0.0);
        for (k, out) in f(inputs).into_iter().enumerate() {
            let ty = trace::type_of(out);
            if ty.dtype != DType::F32 {
                continue;
            }
            // A weight that differs from place to place: cos(1 + 0.7 position + k).
            let mut angle = leaf::scalar(1.0 + k as f64);
            for d in 0..ty.rank() {
                let position = ew::cast(leaf::iota(d, &ty), DType::F32);
                angle = ew::add(ew::scale(position, 0.7 + 0.13 * d as f64), angle);
            }
            let weighted = ew::mul(out, ew::unary(ew::UnaryKind::Cos, angle));
            let all: Vec<usize> = (0..ty.rank()).collect();
            loss = ew::add(loss, reduce::reduce(weighted, reduce::Kind::Sum, &all));
        }
        vec![loss]
    });
    let loss = graph.outputs[0];
    let inputs: Vec<(usize, Value)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(i, n)| match &n.op {
            crate::ops::Op::Input(op) if n.types[0].dtype == DType::F32 => {
                Some((op.index as usize, Value { node: i as u32, port: 0 }))
            }
            _ => None,
        })
        .collect();
    let wrt: Vec<Value> = inputs.iter().map(|i| i.1).collect();
    let grads = grad(&mut graph, loss, &wrt).unwrap_or_else(|e| panic!("{e}"));
    graph.outputs.extend(grads);
    (graph, inputs.into_iter().map(|i| i.0).collect())
}
