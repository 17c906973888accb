//! Runs step programs on the reference device and applies their updates by hand, so that these
//! tests stand on the graph alone.

use mobilis::devices::reference::{self, RefArray};
use mobilis::graph::trace::{self, Handle, Mode};
use mobilis::graph::{DType, Dim, Graph, Sizes, TensorType, VarDecl, VarId, VarKind};
use mobilis::module::init::Init;
use std::collections::HashMap;

/// Values of variables between runs.
#[derive(Default, Clone)]
pub struct Machine {
    pub values: HashMap<VarId, RefArray>,
}

impl Machine {
    /// Runs a graph once, stores its updates, gives its outputs.
    pub fn run(&mut self, graph: &Graph, inputs: &[RefArray]) -> Vec<RefArray> {
        let sizes = Sizes::new();
        let vars: Vec<RefArray> =
            graph.vars.iter().map(|v| self.values.entry(v.id).or_insert_with(|| fresh(v)).clone()).collect();
        let values = reference::run(graph, &sizes, inputs, &vars).unwrap();
        for (index, value) in &graph.updates {
            self.values.insert(graph.vars[*index as usize].id, values.get(*value).clone());
        }
        graph.outputs.iter().map(|v| values.get(*v).clone()).collect()
    }

    /// The value of the variable called `name`.
    pub fn named(&self, graph: &Graph, name: &str) -> RefArray {
        let var = graph.vars.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no variable {name}"));
        self.values[&var.id].clone()
    }
}

fn fresh(var: &VarDecl) -> RefArray {
    let sizes = var.ty.sizes(&Sizes::new()).unwrap();
    let value = match var.init {
        Init::Zeros => 0.0,
        Init::Ones => 1.0,
        Init::Constant(v) => v,
        ref other => panic!("{} has {other:?}, which these tests set by hand", var.name),
    };
    RefArray::filled(&sizes, value)
}

/// A real type of fixed sizes.
pub fn real(sizes: &[usize]) -> TensorType {
    TensorType::new(sizes.iter().map(|n| Dim::fixed(*n as u64)).collect(), DType::F32)
}

/// A parameter to be traced.
pub fn parameter(name: &str, sizes: &[usize]) -> VarDecl {
    VarDecl {
        id: VarId::fresh(),
        name: name.into(),
        ty: real(sizes),
        kind: VarKind::Param,
        init: Init::Zeros,
        frozen: false,
    }
}

/// Traces a loss over parameters and real inputs of the given sizes.
pub fn loss(parameters: &[VarDecl], inputs: &[&[usize]], f: impl FnOnce(&[Handle], &[Handle]) -> Vec<Handle>) -> Graph {
    let (graph, ()) = trace::trace(None, Mode::Train, &|_| false, || {
        let inputs: Vec<Handle> = inputs
            .iter()
            .enumerate()
            .map(|(i, sizes)| trace::input(format!("argument {}", i + 1), real(sizes), ""))
            .collect();
        let parameters: Vec<Handle> = parameters.iter().map(|p| trace::variable(|| p.clone(), p.id)).collect();
        f(&parameters, &inputs).into_iter().for_each(trace::output);
    })
    .unwrap();
    graph
}

pub fn scalar(value: f64) -> RefArray {
    RefArray::new(&[], vec![value])
}
