//! Joins nodes that compute the same from the same, so that it is computed once.
//!
//! Gradient rules write what they need without looking whether the forward pass, or another rule,
//! has it already. No operation has an effect besides its outputs (random operations name their
//! stream), so two nodes of one operation, one setting and the same inputs are one.

use super::rewrite::{push, rewrite};
use crate::graph::{Graph, Node};
use crate::ops::Op;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The graph with nodes that compute the same joined.
pub fn join(graph: Graph) -> Graph {
    let mut known: HashMap<u64, Vec<u32>> = HashMap::with_capacity(graph.nodes.len());
    rewrite(graph, |graph, node| {
        if matches!(node.op, Op::Input(_) | Op::Var(_)) {
            return push(graph, node);
        }
        let alike = known.entry(print(&node)).or_default();
        match alike.iter().find(|id| same(&graph.nodes[**id as usize], &node)) {
            Some(id) => (0..node.types.len() as u16).map(|port| crate::graph::Value { node: *id, port }).collect(),
            None => {
                alike.push(graph.nodes.len() as u32);
                push(graph, node)
            }
        }
    })
}

/// A number that is equal for equal nodes.
fn print(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(&node.op).hash(&mut hasher);
    node.inputs.hash(&mut hasher);
    // What has no inputs would be compared with all others of its kind.
    if let Op::Constant(op) = &node.op {
        format!("{:?}", op.fill).hash(&mut hasher);
        op.ty.rank().hash(&mut hasher);
    }
    hasher.finish()
}

/// Settings are compared as they print: a number prints all of its digits and its sign, an extent
/// what tells it from others.
fn same(a: &Node, b: &Node) -> bool {
    a.inputs == b.inputs && a.types == b.types && format!("{:?}", a.op) == format!("{:?}", b.op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::elementwise::{self as ew, UnaryKind};
    use crate::ops::leaf;
    use crate::ops::random::{Distribution, random};
    use crate::testing::{Given, check_cpu, real, traced};
    use crate::transforms::prune::prune;

    fn given() -> Vec<Given> {
        vec![real(&[3, 4], 1)]
    }

    #[test]
    fn equal_nodes_become_one_and_others_stay() {
        let f = |x: &[crate::graph::trace::Handle]| {
            let e = |v| ew::unary(UnaryKind::Exp, v);
            let (a, b) = (ew::add(e(x[0]), leaf::scalar(0.0)), ew::add(e(x[0]), leaf::scalar(-0.0)));
            vec![ew::add(a, b), ew::mul(e(x[0]), x[0])]
        };
        let graph = prune(join(traced(&given(), f)));
        let count = |name: &str| graph.nodes.iter().filter(|n| n.op.rule().name() == name).count();
        assert_eq!((count("exp"), count("constant"), count("add"), count("mul")), (1, 2, 3, 1));
        check_cpu(&given(), &f, 1e-6);
    }

    #[test]
    fn two_draws_are_two() {
        let graph = traced(&given(), |x| {
            let ty = crate::graph::trace::type_of(x[0]);
            let draw = || random(Distribution::Uniform, &ty);
            vec![ew::add(draw(), draw())]
        });
        let draws = |g: &Graph| g.nodes.iter().filter(|n| matches!(n.op, Op::Random(_))).count();
        assert_eq!((draws(&graph), draws(&join(graph.clone()))), (2, 2));
    }
}
