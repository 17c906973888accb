//! Joins chains of elementwise operations into one, so that their intermediate values are never
//! stored.
//!
//! From the last node backwards, every elementwise node becomes the root of a chain and takes in
//! the elementwise producers of the same extents that nobody else needs. Constants and positions
//! are taken into every chain that uses them.

use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use std::collections::{BTreeSet, HashMap};

/// What a device's chains may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Different inputs.
    pub inputs: usize,
    /// Steps.
    pub steps: usize,
    /// Real values alive at once.
    pub floats: usize,
    /// Whole numbers and truth values alive at once.
    pub ints: usize,
}

fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_))
}

fn is_source(op: &Op) -> bool {
    matches!(op, Op::Constant(_) | Op::Iota(_))
}

/// The graph with its elementwise chains fused. Nodes that nothing needs any more stay; see
/// [`prune`](super::prune::prune).
pub fn fuse(mut graph: Graph, limits: &Limits) -> Graph {
    let mut users: Vec<Vec<u32>> = vec![vec![]; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        for v in &node.inputs {
            users[v.node as usize].push(id as u32);
        }
    }
    let mut kept: Vec<bool> = vec![false; graph.nodes.len()];
    for v in graph.results() {
        kept[v.node as usize] = true;
    }
    let mut absorbed = vec![false; graph.nodes.len()];
    for root in (0..graph.nodes.len()).rev() {
        if absorbed[root] || !is_elementwise(&graph.nodes[root].op) || (users[root].is_empty() && !kept[root]) {
            continue;
        }
        let mut members = BTreeSet::from([root as u32]);
        let mut refused: BTreeSet<u32> = BTreeSet::new();
        loop {
            let candidate =
                members.iter().rev().flat_map(|m| &graph.nodes[*m as usize].inputs).map(|v| v.node).find(|p| {
                    let node = &graph.nodes[*p as usize];
                    let same = || node.types[0].same_extents(&graph.nodes[root].types[0]);
                    let free = || !kept[*p as usize] && users[*p as usize].iter().all(|u| members.contains(u));
                    let joins = match &node.op {
                        Op::Constant(_) => node.types[0].rank() == 0 || same(),
                        Op::Iota(_) => same(),
                        op => is_elementwise(op) && same() && free(),
                    };
                    joins && !members.contains(p) && !refused.contains(p)
                });
            let Some(candidate) = candidate else { break };
            members.insert(candidate);
            if !fits(&build(&graph, &members).0, &graph, &members, limits) {
                members.remove(&candidate);
                refused.insert(candidate);
            }
        }
        let (chain, inputs) = build(&graph, &members);
        for m in &members {
            if *m as usize != root && is_elementwise(&graph.nodes[*m as usize].op) {
                absorbed[*m as usize] = true;
            }
        }
        let node = &mut graph.nodes[root];
        *node = Node { op: Op::Chain(chain), inputs, types: node.types.clone(), scope: node.scope };
    }
    graph
}

/// The chain of some nodes, of which the last is the root, and its inputs.
fn build(graph: &Graph, members: &BTreeSet<u32>) -> (Chain, Vec<Value>) {
    let mut inputs: Vec<Value> = vec![];
    for m in members {
        for v in &graph.nodes[*m as usize].inputs {
            if !members.contains(&v.node) && !inputs.contains(v) {
                inputs.push(*v);
            }
        }
    }
    let place: HashMap<u32, u16> = members.iter().enumerate().map(|(i, m)| (*m, (inputs.len() + i) as u16)).collect();
    let number = |v: &Value| match place.get(&v.node) {
        Some(n) => *n,
        None => inputs.iter().position(|i| i == v).expect("what is no member is an input") as u16,
    };
    let steps = members.iter().map(|m| {
        let node = &graph.nodes[*m as usize];
        Step { op: node.op.clone(), args: node.inputs.iter().map(number).collect(), ty: node.types[0].clone() }
    });
    (Chain { inputs: inputs.len(), steps: steps.collect() }, inputs)
}

/// Whether a chain keeps within the limits.
fn fits(chain: &Chain, graph: &Graph, members: &BTreeSet<u32>, limits: &Limits) -> bool {
    use crate::graph::DType;
    if chain.inputs > limits.inputs || chain.steps.len() > limits.steps {
        return false;
    }
    let (_, inputs) = build(graph, members);
    let dtype =
        |a: usize| if a < chain.inputs { graph.ty(inputs[a]).dtype } else { chain.steps[a - chain.inputs].ty.dtype };
    let last = chain.last_uses();
    let mut alive: BTreeSet<usize> = BTreeSet::new();
    for (i, step) in chain.steps.iter().enumerate() {
        alive.extend(step.args.iter().map(|a| *a as usize));
        alive.insert(chain.inputs + i);
        let floats = alive.iter().filter(|a| dtype(**a) == DType::F32).count();
        if floats > limits.floats || alive.len() - floats > limits.ints {
            return false;
        }
        alive.retain(|a| last[*a] > i);
    }
    true
}

/// Whether a node is free to compute wherever it is used.
pub fn is_free(op: &Op) -> bool {
    is_source(op)
}
