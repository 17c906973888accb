//! Joins elementwise operations into chains, so that their intermediate values are never stored.
//!
//! A value must be in memory where something other than a chain over the same positions reads it.
//! Such values are the roots. From the last root backwards, each takes in the elementwise producers
//! that it reads. A producer that several chains read is computed in each of them if that is
//! cheap: if what it is computed from is no larger than itself, so that reading that instead costs
//! no traffic, and the work is small. (An activation's derivative then reads the activation's
//! argument, and of all that lies between nothing is kept for the backward pass.) Otherwise it
//! becomes a root itself. Constants and positions are taken into every chain that uses them.

use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::ops::elementwise::{BinaryKind, UnaryKind};
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
    /// Results.
    pub results: usize,
}

/// The work, in additions, up to which a value is computed again rather than kept: that of two
/// error functions, about what storing and loading a value takes.
const CHEAP: usize = 48;

pub(super) fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::Cast(_))
}

fn is_source(op: &Op) -> bool {
    matches!(op, Op::Constant(_) | Op::Iota(_))
}

/// The work of an operation on one value, in additions.
fn work(op: &Op) -> usize {
    match op {
        Op::Unary(op) => match op.kind {
            UnaryKind::Neg | UnaryKind::Abs | UnaryKind::Sign | UnaryKind::Not => 1,
            UnaryKind::Floor | UnaryKind::Ceil | UnaryKind::Round => 1,
            UnaryKind::Bf16 | UnaryKind::F16 => 6,
            UnaryKind::Sqrt | UnaryKind::Rsqrt | UnaryKind::Recip => 6,
            _ => 20,
        },
        Op::Binary(op) => match op.kind {
            BinaryKind::Div | BinaryKind::Rem => 6,
            BinaryKind::Pow => 60,
            _ => 1,
        },
        _ => 1,
    }
}

/// The graph with its elementwise chains fused. Nodes that nothing needs any more stay; see
/// [`prune`](super::prune::prune).
pub fn fuse(mut graph: Graph, limits: &Limits) -> Graph {
    let Plan { mut roots, again } = Plan::new(&graph);
    let mut chains: Vec<(usize, Node)> = vec![];
    for root in (0..graph.nodes.len()).rev() {
        if !roots[root] || !is_elementwise(&graph.nodes[root].op) {
            continue;
        }
        let mut members = gather(&graph, root as u32, &roots, &again, limits);
        while !fits(&graph, &members, limits) {
            shrink(&graph, &mut members);
        }
        // What was left out must be there to be read.
        for v in members.iter().flat_map(|m| &graph.nodes[*m as usize].inputs) {
            roots[v.node as usize] |= !members.contains(&v.node);
        }
        let (chain, inputs) = build(&graph, &members);
        let Node { types, scope, .. } = graph.nodes[root].clone();
        chains.push((root, Node { op: Op::Chain(chain), inputs, types, scope }));
    }
    for (root, node) in chains {
        graph.nodes[root] = node;
    }
    graph
}

/// What is known of every node before chains are built.
struct Plan {
    /// Whether a node's value must be in memory.
    roots: Vec<bool>,
    /// Whether it is computed in every chain that reads it.
    again: Vec<bool>,
}

/// The chains that would hold a node if nothing were kept that need not be.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    None,
    One(u32),
    Several,
}

impl Plan {
    fn new(graph: &Graph) -> Plan {
        let mut roots = needed(graph);
        let owners = owners(graph, &roots);
        // For each node what computing it within a chain reads, and the work.
        let mut reads: Vec<(Vec<u32>, usize)> = vec![(vec![], 0); graph.nodes.len()];
        let mut again = vec![false; graph.nodes.len()];
        for (id, node) in graph.nodes.iter().enumerate() {
            if !is_elementwise(&node.op) {
                continue;
            }
            let (mut from, mut total) = (vec![], work(&node.op));
            for v in &node.inputs {
                let source = &graph.nodes[v.node as usize];
                let within = is_elementwise(&source.op) && !roots[v.node as usize];
                let whole = graph.ty(*v).same_extents(&node.types[0]) && !is_source(&source.op);
                let more: &[u32] = if within { &reads[v.node as usize].0 } else { &[v.node][..whole as usize] };
                for m in more {
                    if !from.contains(m) {
                        from.push(*m);
                    }
                }
                total += if within { reads[v.node as usize].1 } else { 0 };
            }
            if !roots[id] && owners[id] == Owner::Several {
                let bytes: usize = from.iter().map(|n| graph.nodes[*n as usize].types[0].dtype.bytes()).sum();
                again[id] = bytes <= node.types[0].dtype.bytes() && total <= CHEAP;
                roots[id] = !again[id];
            }
            reads[id] = (from, total);
        }
        Plan { roots, again }
    }
}

/// The nodes whose values must be in memory: something other than a chain over the same positions
/// reads them.
fn needed(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    for v in graph.results() {
        needed[v.node as usize] = true;
    }
    for node in &graph.nodes {
        for v in &node.inputs {
            let joins = is_elementwise(&node.op) && graph.ty(*v).same_extents(&node.types[0]);
            needed[v.node as usize] |= !joins;
        }
    }
    needed
}

/// The owners of every node.
fn owners(graph: &Graph, roots: &[bool]) -> Vec<Owner> {
    let mut owners = vec![Owner::None; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        let mine = if roots[id] { Owner::One(id as u32) } else { owners[id] };
        for v in &node.inputs {
            let owner = &mut owners[v.node as usize];
            *owner = match (*owner, mine) {
                (Owner::None, new) => new,
                (old, new) if old == new || new == Owner::None => old,
                _ => Owner::Several,
            };
        }
    }
    owners
}

/// The nodes of the chain that ends in `root`, as many as its steps allow.
fn gather(graph: &Graph, root: u32, roots: &[bool], again: &[bool], limits: &Limits) -> BTreeSet<u32> {
    let ty = &graph.nodes[root as usize].types[0];
    let mut members = BTreeSet::new();
    members.insert(root);
    // The latest first: the earliest are those that a chain can do without.
    let mut open = BTreeSet::new();
    open.extend(graph.nodes[root as usize].inputs.iter().map(|v| v.node));
    while let Some(candidate) = open.pop_last() {
        let node = &graph.nodes[candidate as usize];
        let same = || node.types[0].same_extents(ty);
        let joins = match &node.op {
            Op::Constant(_) => node.types[0].rank() == 0 || same(),
            Op::Iota(_) => same(),
            op => is_elementwise(op) && same() && (!roots[candidate as usize] || again[candidate as usize]),
        };
        if joins && members.len() < limits.steps {
            members.insert(candidate);
            open.extend(node.inputs.iter().map(|v| v.node));
        }
    }
    members
}

/// Leaves the first operation out, and the constants that only it reads.
fn shrink(graph: &Graph, members: &mut BTreeSet<u32>) {
    let first = members.iter().copied().find(|m| is_elementwise(&graph.nodes[*m as usize].op));
    first.map(|m| members.remove(&m));
    let read: Vec<u32> = members.iter().flat_map(|m| &graph.nodes[*m as usize].inputs).map(|v| v.node).collect();
    members.retain(|m| read.contains(m) || is_elementwise(&graph.nodes[*m as usize].op));
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
    (Chain::single(inputs.len(), steps.collect()), inputs)
}

/// Whether a chain keeps within the limits: every value has a register from its first use on.
fn fits(graph: &Graph, members: &BTreeSet<u32>, limits: &Limits) -> bool {
    let (chain, _) = build(graph, members);
    if chain.inputs > limits.inputs {
        return false;
    }
    let (floats, ints) = chain.pressure();
    floats <= limits.floats && ints <= limits.ints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Dim;
    use crate::graph::trace::Handle;
    use crate::ops::elementwise::{self as ew, activation};
    use crate::ops::{contraction, leaf};
    use crate::testing::{Given, check_cpu, real, traced, with_gradients};
    use crate::transforms::prune::prune;

    const LIMITS: Limits = Limits { inputs: 16, steps: 48, floats: 20, ints: 12, results: 4 };

    fn chains(graph: &Graph, limits: &Limits) -> Vec<Chain> {
        let graph = prune(fuse(prune(graph.clone()), limits));
        let chain = |n: &Node| if let Op::Chain(c) = &n.op { Some(c.clone()) } else { None };
        graph.nodes.iter().filter_map(chain).collect()
    }

    #[test]
    fn an_activation_is_one_chain_and_its_derivative_another() {
        let given = [real(&[3, 4], 1), real(&[4, 5], 2), real(&[5, 2], 3), real(&[5], 4)];
        for activation in [activation::gelu, activation::gelu_tanh, activation::silu] {
            let f = |x: &[Handle]| {
                let h = ew::add(contraction::einsum(&[x[0], x[1]], &[&[0, 1], &[1, 2]], &[0, 2]), x[3]);
                vec![contraction::einsum(&[activation(h), x[2]], &[&[0, 1], &[1, 2]], &[0, 2])]
            };
            let (graph, _) = with_gradients(&given, &f);
            let inputs: Vec<usize> = chains(&graph, &LIMITS)
                .iter()
                .filter(|c| c.steps.last().is_some_and(|s| s.ty.dims.last() == Some(&Dim::fixed(5))))
                .map(|c| c.inputs)
                .collect();
            // The product and the bias; these and the gradient.
            assert_eq!(inputs, [2, 3]);
            check_cpu(&given, &f, 2e-5);
        }
    }

    #[test]
    fn dear_values_that_are_read_twice_are_kept() {
        let given: Vec<Given> = (0..3).map(|i| real(&[4, 3], i)).collect();
        let f = |x: &[Handle]| {
            let sum = ew::add(x[0], x[1]);
            let all: Vec<usize> = vec![0];
            let total = |h| crate::ops::reduce::reduce(h, crate::ops::reduce::Kind::Sum, &all);
            vec![total(ew::mul(sum, x[2])), total(ew::sub(sum, x[2]))]
        };
        let found = chains(&traced(&given, f), &LIMITS);
        assert_eq!(found.iter().map(|c| c.steps.len()).collect::<Vec<_>>(), [1, 1, 1]);
        check_cpu(&given, &f, 1e-6);
    }

    #[test]
    fn chains_keep_within_every_limit() {
        let given: Vec<Given> = (0..9).map(|i| real(&[5], i)).collect();
        let f = |x: &[Handle]| {
            let products: Vec<Handle> = (0..9).map(|i| ew::mul(x[i], ew::exp(x[(i + 1) % 9]))).collect();
            let sum = products.iter().rev().copied().reduce(ew::add).expect("there are nine");
            vec![ew::add(sum, leaf::scalar(2.0))]
        };
        let graph = traced(&given, f);
        for (inputs, steps, floats) in [(2, 30, 8), (6, 3, 8), (9, 30, 4), (9, 99, 99), (9, 30, 3)] {
            let limits = Limits { inputs, steps, floats, ints: 4, results: 4 };
            let found = chains(&graph, &limits);
            assert!(found.iter().all(|c| c.inputs <= inputs && c.steps.len() <= steps), "{limits:?}");
            let work: usize = found.iter().map(|c| c.steps.iter().filter(|s| !s.args.is_empty()).count()).sum();
            assert!(work >= 27);
        }
        assert_eq!(chains(&graph, &Limits { inputs: 9, steps: 99, floats: 99, ints: 4, results: 4 }).len(), 1);
        check_cpu(&given, &f, 1e-6);
    }
}
