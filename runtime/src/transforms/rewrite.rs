//! Rebuilding a graph node by node: what transforms that replace nodes one at a time share.
//!
//! Nodes are visited in order. Each comes with its inputs renamed to what they became, and the
//! transform says by which values of the new graph its outputs are given: those of a node that it
//! pushes, or of nodes that are there already.

use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::movement::Reshape;

/// Appends a node and gives its outputs.
pub(super) fn push(graph: &mut Graph, node: Node) -> Vec<Value> {
    let id = graph.nodes.len() as u32;
    let outputs = (0..node.types.len() as u16).map(|port| Value { node: id, port }).collect();
    graph.nodes.push(node);
    outputs
}

/// Calls `f` with every value that a node reads or that is a result.
pub(super) fn rename(graph: &mut Graph, f: impl Fn(&mut Value)) {
    graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).for_each(&f);
    graph.outputs.iter_mut().for_each(&f);
    graph.updates.iter_mut().for_each(|u| f(&mut u.1));
    graph.taps.iter_mut().for_each(|t| f(&mut t.1));
}

/// The graph in which `step` has replaced every node. A result keeps its axes' names: where what
/// replaces it has others, it is seen through a reshape.
pub(super) fn rewrite(graph: Graph, mut step: impl FnMut(&mut Graph, Node) -> Vec<Value>) -> Graph {
    let Graph { nodes, mut outputs, mut updates, mut taps, inputs, lists, vars, printed, scopes, streams } = graph;
    let count = nodes.len();
    let mut new =
        Graph { nodes: Vec::with_capacity(count), inputs, lists, vars, printed, scopes, streams, ..Graph::default() };
    let mut became: Vec<Vec<Value>> = Vec::with_capacity(count);
    let mut results: Vec<&mut Value> = outputs.iter_mut().collect();
    results.extend(updates.iter_mut().map(|u| &mut u.1));
    results.extend(taps.iter_mut().map(|t| &mut t.1));
    let mut asked: Vec<Vec<&mut Value>> = (0..count).map(|_| vec![]).collect();
    for v in results {
        asked[v.node as usize].push(v);
    }
    for (mut node, asked) in nodes.into_iter().zip(asked) {
        for v in &mut node.inputs {
            *v = became[v.node as usize][v.port as usize];
        }
        let scope = node.scope;
        let types: Vec<_> = asked.iter().map(|v| node.types[v.port as usize].clone()).collect();
        let values = step(&mut new, node);
        for (v, ty) in asked.into_iter().zip(types) {
            let value = values[v.port as usize];
            *v = match *new.ty(value) == ty {
                true => value,
                false => {
                    let op = Op::Reshape(Reshape { dims: ty.dims.clone() });
                    push(&mut new, Node { op, inputs: vec![value], types: vec![ty], scope })[0]
                }
            };
        }
        became.push(values);
    }
    Graph { outputs, updates, taps, ..new }
}
