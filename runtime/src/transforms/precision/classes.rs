//! Which products a graph has: the three of every linear layer, and others.

use super::report::Role;
use crate::graph::{Graph, Value, VarKind};
use crate::ops::Op;
use crate::ops::contraction::Einsum;
use crate::ops::product::Product;
use std::collections::{HashMap, HashSet};

/// A linear layer: a contraction of a computed value with a parameter.
pub(super) struct Linear {
    /// The parameter's name.
    pub name: String,
    /// Whether it is a head or a router.
    pub head: bool,
    /// The contraction.
    op: Einsum,
    /// The places of `x` and of the weight among its operands.
    places: [usize; 2],
    inputs: [Value; 2],
    scope: u32,
}

/// The products of a graph.
pub(super) struct Classes {
    pub linears: Vec<Linear>,
    /// For the nodes that are a linear layer's products: which layer, which product, and where the
    /// operands are in the order of [`Gemm::operands`](super::Gemm::operands).
    pub parts: HashMap<u32, (usize, Role, [usize; 2])>,
}

impl Classes {
    /// Looks for linear layers among the first `forward` nodes, and for their gradients behind.
    pub fn of(graph: &Graph, forward: usize) -> Classes {
        let tables = tables(graph);
        let scored = scored(graph, forward);
        let mut classes = Classes { linears: vec![], parts: HashMap::new() };
        for (id, node) in graph.nodes.iter().enumerate() {
            let (Op::Einsum(op), &[a, b]) = (&node.op, node.inputs.as_slice()) else { continue };
            if id >= forward {
                classes.backward(id as u32, op, [a, b], node.scope);
                continue;
            }
            let places = match (parameter(graph, a), parameter(graph, b)) {
                (None, Some(_)) => [0, 1],
                (Some(_), None) => [1, 0],
                _ => continue,
            };
            let Some(var) = parameter(graph, node.inputs[places[1]]).filter(|_| Product::of(op).is_some()) else {
                continue;
            };
            let name = graph.vars[var as usize].name.clone();
            let head = scored.contains(&(id as u32)) || tables.contains(&var) || is_head(&name);
            classes.parts.insert(id as u32, (classes.linears.len(), Role::Forward, places));
            classes.linears.push(Linear { name, head, op: op.clone(), places, inputs: [a, b], scope: node.scope });
        }
        classes
    }

    /// Notes a contraction that the gradient rule of a linear layer's has appended: that rule puts
    /// the gradient first, then the other operand.
    fn backward(&mut self, id: u32, op: &Einsum, [_, other]: [Value; 2], scope: u32) {
        let taken: HashSet<(usize, Role)> = self.parts.values().map(|p| (p.0, p.1)).collect();
        let is = |layer: &Linear, by: usize| {
            let rest = 1 - by;
            let terms = [&layer.op.output, &layer.op.operands[rest]];
            layer.scope == scope
                && other == layer.inputs[rest]
                && op.operands.iter().eq(terms)
                && op.output == layer.op.operands[by]
        };
        for (i, layer) in self.linears.iter().enumerate() {
            let [x, w] = layer.places;
            let role = match (is(layer, x), is(layer, w)) {
                (true, _) => Role::ByInput,
                (_, true) => Role::ByWeight,
                _ => continue,
            };
            // Layers that share all of this differ in nothing but their names.
            if !taken.contains(&(i, role)) {
                self.parts.insert(id, (i, role, [0, 1]));
                return;
            }
        }
    }
}

/// The parameter that a value shows all or a part of.
fn parameter(graph: &Graph, v: Value) -> Option<u32> {
    let node = graph.node(v);
    match &node.op {
        Op::Var(op) if graph.vars[op.index as usize].kind == VarKind::Param => Some(op.index),
        Op::Reshape(_) | Op::Permute(_) | Op::Slice(_) => parameter(graph, node.inputs[0]),
        _ => None,
    }
}

/// The parameters that rows are looked up in.
fn tables(graph: &Graph) -> HashSet<u32> {
    let tables = graph.nodes.iter().filter(|n| matches!(n.op, Op::Embedding(_)));
    tables.flat_map(|n| &n.inputs).filter_map(|v| parameter(graph, *v)).collect()
}

/// The nodes whose values become the logits of a cross-entropy or are sorted.
fn scored(graph: &Graph, forward: usize) -> HashSet<u32> {
    let mut found = HashSet::new();
    for node in graph.nodes[..forward].iter().rev() {
        let mut open = match node.op {
            Op::CrossEntropy(_) | Op::Sort(_) | Op::ArgExtreme(_) | Op::Sample(_) => vec![node.inputs[0].node],
            _ => continue,
        };
        while let Some(id) = open.pop() {
            let node = &graph.nodes[id as usize];
            let through = matches!(
                node.op,
                Op::Unary(_)
                    | Op::Binary(_)
                    | Op::Select(_)
                    | Op::Cast(_)
                    | Op::Reshape(_)
                    | Op::Permute(_)
                    | Op::Softmax(_)
            );
            if found.insert(id) && through {
                open.extend(node.inputs.iter().map(|v| v.node));
            }
        }
    }
    found
}

fn is_head(name: &str) -> bool {
    name.split('.').any(|part| part == "head" || part == "lm_head")
}

/// The layer that a parameter belongs to: the text before the first number in its name, and that.
pub(super) fn layer(name: &str) -> Option<(&str, usize)> {
    let mut end = 0;
    for part in name.split('.') {
        if let Ok(number) = part.parse() {
            return Some((&name[..end], number));
        }
        end += part.len() + 1;
    }
    None
}
