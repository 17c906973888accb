//! A decoder layer under a policy of 16 bits, on the emulated GPU: stored in 16 bits and in `f32`, forward and with its
//! gradients, the results are the same bits.

use super::super::{Lower, finished, open};
use crate::devices::{Device, cpu};
use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, Graph, Sizes, Value, VarDecl, VarId, VarKind};
use crate::module::encoded::Encoding;
use crate::module::init::Init;
use crate::ops::Op;
use crate::ops::attention::{Extras, Settings, attend};
use crate::ops::contraction::einsum;
use crate::ops::elementwise::{self as ew, activation};
use crate::ops::leaf::Var;
use crate::ops::norm::{Kind, norm};
use crate::ops::rope::{Pairing, Rotary, positions, rope, tables};
use crate::program::host::{HostRef, HostSlice};
use crate::testing::{Given, outputs_on_cpu, real, traced, with_gradients};
use crate::transforms::precision::{Compute, Options, Precision, apply};

const TIME: usize = 20;
const WIDE: usize = 32;
const TALL: usize = 48;

/// The layer's input and its weights.
fn given() -> Vec<Given> {
    let small = |sizes: &[usize], seed| {
        let mut given = real(sizes, seed);
        given.array.data.iter_mut().for_each(|v| *v *= 0.4);
        given
    };
    let shapes = shapes([1, TIME, WIDE], [1, 2, 16], TALL);
    let one = |(i, sizes): (usize, &Vec<usize>)| {
        if [0, 1, 6].contains(&i) { real(sizes, i as u64) } else { small(sizes, i as u64) }
    };
    shapes.iter().enumerate().map(one).collect()
}

/// The sizes of a layer's input and weights: queries of `groups` heads of keys with `each` queries.
fn shapes([batch, time, wide]: [usize; 3], [groups, each, features]: [usize; 3], tall: usize) -> Vec<Vec<usize>> {
    let keys = vec![wide, groups, features];
    let (queries, back) = (vec![wide, groups, each, features], vec![groups, each, features, wide]);
    let input = vec![batch, time, wide];
    let outer = vec![tall, wide];
    vec![input, vec![wide], queries, keys.clone(), keys, back, vec![wide], outer.clone(), outer, vec![wide, tall]]
}

/// What Llama's layer does: norm, attention with turned queries and keys, norm, gated products; sums with what came in.
fn layer(h: &[Handle]) -> Vec<Handle> {
    let normed = norm(Kind::Rms, h[0], Some(h[1]), None, 1e-5);
    let project = |w| einsum(&[normed, w], &[&[0, 1, 2], &[2, 3, 4]], &[0, 1, 3, 4]);
    let queries = einsum(&[normed, h[2]], &[&[0, 1, 2], &[2, 3, 5, 4]], &[0, 1, 3, 5, 4]);
    let turned = |x| {
        let features = type_of(x).dims.last().expect("it has features").extent.clone();
        let table = tables(&Rotary::default(), positions(x, 1), &features);
        rope(x, table, Pairing::HalfSplit, &[1])
    };
    let (q, k, v) = (turned(queries), turned(project(h[3])), project(h[4]));
    let settings = Settings { causal: true, ..Settings::default() };
    let (seen, _) = attend(q, k, v, settings, Extras::default());
    let x = ew::add(h[0], einsum(&[seen, h[5]], &[&[0, 1, 3, 5, 4], &[3, 5, 4, 2]], &[0, 1, 2]));
    let normed = norm(Kind::Rms, x, Some(h[6]), None, 1e-5);
    let up = |w| einsum(&[normed, w], &[&[0, 1, 2], &[3, 2]], &[0, 1, 3]);
    let gated = ew::mul(activation::silu(up(h[7])), up(h[8]));
    vec![ew::add(x, einsum(&[gated, h[9]], &[&[0, 1, 3], &[2, 3]], &[0, 1, 2]))]
}

fn rounded(graph: Graph, compute: Compute) -> Graph {
    let options = Options { forward: graph.nodes.len(), training: false };
    let applied = apply(graph, &Precision::new(compute), &options).expect("a policy without exceptions");
    cpu::optimize(applied.graph)
}

struct Ran {
    results: Vec<Vec<f32>>,
    kernels: Vec<&'static str>,
    moved: usize,
    arena: usize,
}

/// Runs a graph on the emulated GPU, in 16 bits where that is planned or not at all; nothing where there is no emulator.
fn run(graph: &Graph, given: &[Given], small: bool) -> Option<Ran> {
    let gpu = open(Device::Emulated).inspect_err(|e| eprintln!("skipped: {e}")).ok()?;
    let (sizes, mut results) = (Sizes::new(), vec![]);
    let mut cx = Lower::new(&gpu, graph, &sizes, &[]).expect("static sizes");
    if !small {
        cx.small.planned.clear();
    }
    let mut bound = finished(cx, &sizes).expect("it lowers");
    assert!(bound.fallbacks.is_empty(), "{:?}", bound.fallbacks);
    let values: Vec<Vec<f32>> = given.iter().map(|g| g.array.data.iter().map(|v| *v as f32).collect()).collect();
    let pairs = given.iter().zip(&values);
    let arguments: Vec<HostRef> =
        pairs.map(|(g, v)| HostRef { sizes: &g.array.sizes, values: HostSlice::F32(v) }).collect();
    let each = |_, out: cpu::Out| match out {
        cpu::Out::F32(v) => results.push(v.to_vec()),
        _ => panic!("all results are real"),
    };
    bound.run(&[], &arguments, each).unwrap_or_else(|e| panic!("{}", e.message));
    let (kernels, moved, arena) = (bound.kernels(), bound.moved, bound.arena_bytes());
    Some(Ran { results, kernels, moved, arena })
}

fn bits(of: &[Vec<f32>]) -> Vec<Vec<u32>> {
    of.iter().map(|v| v.iter().map(|v| v.to_bits()).collect()).collect()
}

/// The operations that leave real values in `f32`, of those that are not the caller's and have at least one for each position
/// and feature.
fn whole(graph: &Graph) -> Vec<&'static str> {
    let (gpu, sizes) = (open(Device::Emulated).expect("the emulator is there"), Sizes::new());
    let cx = Lower::new(&gpu, graph, &sizes, &[]).expect("static sizes");
    let mut found = vec![];
    for (id, node) in graph.nodes.iter().enumerate() {
        for (port, ty) in node.types.iter().enumerate() {
            let v = Value { node: id as u32, port: port as u16 };
            let small = cx.sizes_of(v).iter().product::<usize>() < TIME * 16 || cx.small.planned.contains_key(&v);
            let passed = node.op.rule().is_view() || matches!(node.op, Op::Input(_));
            if ty.dtype == DType::F32 && !small && !passed {
                found.push(node.op.rule().name());
            }
        }
    }
    found
}

#[test]
fn a_layer_in_sixteen_bits_is_the_same_bits() {
    let given = given();
    let graph = rounded(traced(&given, layer), Compute::Bf16);
    let Some(small) = run(&graph, &given, true) else { return };
    let wide = run(&graph, &given, false).expect("the emulator is there");
    assert_eq!(bits(&small.results), bits(&wide.results));
    // Between operations only the sums with what came in are whole.
    assert_eq!(whole(&graph), ["product", "product"]);
    assert!(!small.kernels.contains(&"convert_rows"), "nothing is packed: {:?}", small.kernels);
    assert!(2 * small.moved < wide.moved && small.arena < wide.arena, "{} bytes of {}", small.moved, wide.moved);
}

/// The other format against the CPU, which keeps the weights of attention in `f32`.
#[test]
fn a_layer_in_f16_is_that_of_the_cpu() {
    let given = given();
    let graph = rounded(traced(&given, layer), Compute::F16);
    let Some(small) = run(&graph, &given, true) else { return };
    assert_eq!(whole(&graph), ["product", "product"]);
    let rounded: Vec<Given> = given.iter().map(Given::rounded).collect();
    let expected = &outputs_on_cpu(&graph, &rounded)[0];
    for (a, b) in small.results[0].iter().zip(&expected.data) {
        assert!((f64::from(*a) - b).abs() < 4e-3, "{a} is not {b}");
    }
}

/// A gated layer with its gradients: what the forward pass keeps for the backward pass is stored in 16 bits too.
#[test]
fn gradients_in_sixteen_bits_are_the_same_bits() {
    let given = [real(&[TIME, WIDE], 1), real(&[WIDE], 2), real(&[TALL, WIDE], 3), real(&[WIDE, TALL], 4)];
    let f = |h: &[Handle]| {
        let normed = norm(Kind::Layer, h[0], Some(h[1]), None, 1e-5);
        let up = einsum(&[normed, h[2]], &[&[0, 1], &[2, 1]], &[0, 2]);
        vec![ew::add(h[0], einsum(&[activation::silu(up), h[3]], &[&[0, 2], &[1, 2]], &[0, 1]))]
    };
    let graph = rounded(with_gradients(&given, &f).0, Compute::Bf16);
    let Some(small) = run(&graph, &given, true) else { return };
    let wide = run(&graph, &given, false).expect("the emulator is there");
    assert_eq!(bits(&small.results), bits(&wide.results));
    assert!(small.moved < wide.moved && small.arena < wide.arena, "{} bytes of {}", small.moved, wide.moved);
}

/// The graph with all inputs but the first as parameters.
fn with_parameters(mut graph: Graph) -> Graph {
    for decl in graph.inputs.split_off(1) {
        let (name, id) = (format!("layer.{}", decl.name), VarId::fresh());
        let (kind, init) = (VarKind::Param, Init::Zeros);
        graph.vars.push(VarDecl { id, name, ty: decl.ty, kind, init, frozen: false });
    }
    for node in &mut graph.nodes {
        if let Op::Input(op) = &node.op
            && op.index > 0
        {
            node.op = Op::Var(Var { index: op.index - 1, ty: op.ty.clone() });
        }
    }
    graph
}

/// A layer of SmolLM2-135M over 1,024 positions: the bytes that its kernels are given, as they are planned. Nothing runs.
#[test]
fn planned_bytes_of_a_layer() {
    let Ok(gpu) = open(Device::Emulated).inspect_err(|e| eprintln!("skipped: {e}")) else { return };
    let shapes = shapes([1, 1024, 576], [3, 3, 64], 1536);
    let given: Vec<Given> = shapes.iter().map(|sizes| real(sizes, 1)).collect();
    let sizes = Sizes::new();
    let moved = |compute: Compute, small: bool, stored: bool| {
        let graph = rounded(with_parameters(traced(&given, layer)), compute);
        let encodings = vec![stored.then_some(Encoding::Bf16); graph.vars.len()];
        let mut cx = Lower::new(&gpu, &graph, &sizes, &encodings).expect("static sizes");
        if !small {
            cx.small.planned.clear();
        }
        let bound = finished(cx, &sizes).expect("it lowers");
        eprintln!("{compute:?}, 16 bits between {small}, weights in 16 bits {stored}: {} bytes", bound.moved);
        bound.moved
    };
    let single = moved(Compute::F32, true, false);
    assert_eq!(single, moved(Compute::F32, false, false), "without a policy nothing is in 16 bits");
    let (before, after) = (moved(Compute::Bf16, false, false), moved(Compute::Bf16, true, false));
    assert!(2 * after < before && after < single, "{after} bytes of {before}, in f32 {single}");
    // Weights that the model stores so are read as they are.
    assert!(moved(Compute::Bf16, true, true) + 2 * 3_500_000 < after);
}
