//! Layers: values against literals or plain loops, forms that must agree with each other, and for
//! every layer that a gradient reaches every parameter, on both devices.

extern crate mobilis_runtime as mobilis;

mod attention;
mod convolution;
mod norm;
mod parameters;
mod position;
mod programs;
mod recurrent;

use mobilis::devices::reference::{self, RefArray};
use mobilis::graph::trace::{self, Handle, Mode};
use mobilis::graph::{DType, Graph, TensorType, VarKind};
use mobilis::module::Module;
use mobilis::prelude::*;
use mobilis::testing::{Given, noise, real};

axes! {
    pub Batch = 2;
    pub Time = 5;
    pub Source = 7;
    pub Past = 3;
    pub Total = Past + Time;
    pub Limit = 9;
    pub Hidden = 8;
    pub Wide = 6;
    pub Heads = 2;
    pub Groups = 3;
    pub HeadDim = 4;
    pub Ffn = 12;
    pub Vocab = 11;
    pub Channels6 = 6;
}

/// Reproducible values for a variable, by its name: about ±0.5, weights of norms around 1.
fn value_of(decl: &mobilis::graph::VarDecl) -> RefArray {
    let seed = decl.name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b as u64));
    let sizes = decl.ty.sizes(&Sizes::new()).expect("static sizes");
    let centre = if decl.init == mobilis::module::init::Init::Ones { 1.0 } else { 0.0 };
    let n: usize = sizes.iter().product();
    let data = (0..n).map(|i| centre + 0.5 * noise(seed, i as u64));
    let whole = decl.ty.dtype == DType::I32;
    RefArray::new(&sizes, data.map(|v| if whole { 0.0 } else { v }).collect())
}

/// An argument of shape `S` in the function being traced.
fn argument<S: Shape, E: Element>() -> Tensor<S, E> {
    Tensor::from_raw(trace::input("argument".into(), Tensor::<S, E>::type_of(), E::NAME))
}

/// Traces a function of a module.
fn traced<M: Module>(module: &M, mode: Mode, f: impl FnOnce(&M) -> Vec<Handle>) -> Graph {
    let build = || f(module).into_iter().for_each(trace::output);
    trace::trace(Some(module), mode, &|_| false, build).unwrap_or_else(|e| panic!("{e}")).0
}

/// The results of a graph for these arguments, on the reference device. States hold zeros.
fn run(graph: &Graph, given: &[Given]) -> Vec<RefArray> {
    let inputs: Vec<RefArray> = given.iter().map(|g| g.array.clone()).collect();
    let vars: Vec<RefArray> = graph
        .vars
        .iter()
        .map(|v| match v.kind {
            VarKind::State => RefArray::filled(&v.ty.sizes(&Sizes::new()).expect("static sizes"), 0.0),
            _ => value_of(v),
        })
        .collect();
    let values = reference::run(graph, &Sizes::new(), &inputs, &vars).unwrap_or_else(|e| panic!("{e}"));
    let new = graph.updates.iter().map(|u| u.1);
    graph.outputs.iter().copied().chain(new).map(|v| values.get(v).clone()).collect()
}

/// Checks that a gradient of `f` reaches every parameter of a module.
fn reaches_every_parameter<M: Module>(module: &M, f: impl FnOnce(&M) -> Handle) {
    use mobilis::ops::{elementwise as ew, leaf, reduce};
    let mut graph = traced(module, Mode::Train, |m| {
        let y = f(m);
        let ty = trace::type_of(y);
        // Every value of the result has a weight of its own, so that sums which vanish (the mean
        // of a norm) hide nothing.
        let mut angle = leaf::scalar(1.0);
        for d in 0..ty.rank() {
            let position = ew::cast(leaf::iota(d, &ty), DType::F32);
            angle = ew::add(ew::scale(position, 0.7 + 0.13 * d as f64), angle);
        }
        let weighted = ew::mul(y, ew::unary(ew::UnaryKind::Cos, angle));
        let all: Vec<usize> = (0..ty.rank()).collect();
        vec![reduce::reduce(weighted, reduce::Kind::Sum, &all)]
    });
    let mut declared = vec![];
    mobilis::module::walk(module, &mut |path, item| {
        if let mobilis::module::Item::Var(v) = item
            && v.var_kind() == VarKind::Param
        {
            declared.push(path.to_string());
        }
    });
    let params: Vec<(usize, mobilis::graph::Value)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(i, n)| match &n.op {
            mobilis::ops::Op::Var(v) if graph.vars[v.index as usize].kind == VarKind::Param => {
                Some((v.index as usize, mobilis::graph::Value { node: i as u32, port: 0 }))
            }
            _ => None,
        })
        .collect();
    let names: Vec<String> = params.iter().map(|p| graph.vars[p.0].name.clone()).collect();
    for name in &declared {
        assert!(names.contains(name), "{name} is not used");
    }
    let wrt: Vec<_> = params.iter().map(|p| p.1).collect();
    let loss = graph.outputs[0];
    let grads = mobilis::transforms::grad::grad(&mut graph, loss, &wrt).unwrap_or_else(|e| panic!("{e}"));
    graph.outputs.extend(grads);
    let given: Vec<Given> = graph.inputs.iter().enumerate().map(|(i, decl)| example(&decl.ty, i as u64)).collect();
    let results = run(&graph, &given);
    for (name, grad) in names.iter().zip(&results[1..]) {
        assert!(grad.data.iter().all(|v| v.is_finite()), "the gradient by {name} is not finite");
        assert!(grad.data.iter().any(|v| v.abs() > 1e-9), "no gradient reaches {name}");
    }
}

/// Values for an argument; indices are small enough for every table here.
fn example(ty: &TensorType, seed: u64) -> Given {
    let sizes = ty.sizes(&Sizes::new()).expect("static sizes");
    match ty.dtype {
        DType::F32 => real(&sizes, seed),
        DType::I32 => mobilis::testing::indices(&sizes, 3, seed),
        DType::Bool => mobilis::testing::mask(&sizes, seed),
    }
}
