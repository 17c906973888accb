//! Models that `mobilis graph` draws: those of the examples and of the zoo.
//!
//! The examples' sources are compiled into this module, so what is drawn is what the tutorial
//! shows. To add a model see `CONTRIBUTING.md`.

use mobilis_runtime::graph::trace::{self, Handle, Mode};
use mobilis_runtime::graph::{Graph, Value};
use mobilis_runtime::language::element::Element;
use mobilis_runtime::{Labels, Module, Shape, Tensor, transforms};
use std::error::Error;

/// A model that can be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawable {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Traces inference.
    pub forward: fn() -> Result<Graph, Box<dyn Error>>,
    /// Traces the loss in training mode, with its gradients by every trained parameter.
    pub training: Option<fn() -> Result<Graph, Box<dyn Error>>>,
}

/// Every model, sorted by name.
pub const ALL: &[Drawable] = &[Drawable {
    name: "dense",
    about: "two dense layers that classify images (examples/02-module.rs)",
    forward: || {
        let net = module::Net::default();
        forward(&net, || net.forward(input("image")).raw())
    },
    training: Some(|| {
        let net = module::Net::default();
        training(&net, || net.loss(input("image"), input::<_, Labels>("digit")).raw())
    }),
}];

#[path = "../examples/02-module.rs"]
#[allow(dead_code, missing_docs)]
mod module;

/// The model of that name.
pub fn find(name: &str) -> Option<&'static Drawable> {
    ALL.iter().find(|d| d.name == name)
}

/// An argument of the function being traced.
fn input<S: Shape, E: Element>(name: &str) -> Tensor<S, E> {
    Tensor::from_raw(trace::input(name.into(), Tensor::<S, E>::type_of(), E::NAME))
}

/// Traces inference.
fn forward(root: &dyn Module, f: impl FnOnce() -> Handle) -> Result<Graph, Box<dyn Error>> {
    let (graph, ()) = trace::trace(Some(root), Mode::Eval, &|_| false, || trace::output(f()))?;
    Ok(graph)
}

/// Traces a loss and its gradients by every trained parameter.
fn training(root: &dyn Module, loss: impl FnOnce() -> Handle) -> Result<Graph, Box<dyn Error>> {
    let (mut graph, ()) = trace::trace(Some(root), Mode::Train, &|_| false, || trace::output(loss()))?;
    let trained = |v: u32| {
        let var = &graph.vars[v as usize];
        var.kind == mobilis_runtime::graph::VarKind::Param && !var.frozen
    };
    let wrt: Vec<Value> = (0u32..)
        .zip(&graph.nodes)
        .filter_map(|(node, n)| match &n.op {
            mobilis_runtime::ops::Op::Var(v) if trained(v.index) => Some(Value { node, port: 0 }),
            _ => None,
        })
        .collect();
    let loss = graph.outputs[0];
    let gradients = transforms::grad::grad(&mut graph, loss, &wrt)?;
    graph.outputs.extend(gradients);
    Ok(transforms::prune::prune(graph))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobilis_runtime::graph::print::{Format, Options, print};

    #[test]
    fn names_are_sorted_and_short() {
        assert!(ALL.windows(2).all(|w| w[0].name < w[1].name));
        assert!(ALL.iter().all(|d| d.name.len() <= 24 && !d.about.is_empty()));
    }

    #[test]
    fn every_model_is_drawn_in_every_format() {
        for model in ALL {
            for trace in [Some(model.forward), model.training].into_iter().flatten() {
                let graph = trace().unwrap_or_else(|e| panic!("{}: {e}", model.name));
                assert!(graph.scopes.len() > 1, "{} has no modules in it", model.name);
                for format in [Format::Text, Format::Mermaid, Format::Html] {
                    assert!(print(&graph, format, &Options::default()).len() > 200, "{}", model.name);
                }
            }
        }
    }
}
