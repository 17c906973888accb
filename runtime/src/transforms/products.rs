//! Joins matrix products: sums of products become one product that accumulates, and products of
//! one left side become one with several results.
//!
//! Both save passes over memory. A sum of products (the gradient of what queries, keys and values
//! were projected from) stores no summand; products of one left side (these projections; a gate and
//! what it gates) pack and read it once, in one parallel region.

use super::bands::filters;
use super::fuse::is_elementwise;
use super::order::order;
use super::prune::prune;
use super::rewrite::rename;
use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::elementwise::BinaryKind;
use crate::ops::product::{LEFTS, Product, RESULTS};
use std::collections::{BTreeSet, HashMap};

/// The graph with its products joined. Nodes that nothing needs any more stay; see [`prune`].
pub fn join(graph: Graph) -> Graph {
    together(sums(graph))
}

/// A node as a product with its operands in order.
pub(super) fn product(graph: &Graph, node: &Node) -> Option<(Product, Vec<Value>)> {
    match &node.op {
        Op::Einsum(_) if filters(graph, node).is_some() => None,
        Op::Product(op) => Some((op.clone(), node.inputs.clone())),
        Op::Einsum(op) => Product::of(op).map(|(op, order)| (op, order.map(|i| node.inputs[i]).to_vec())),
        _ => None,
    }
}

/// Additions of products that nothing else reads become one product.
fn sums(mut graph: Graph) -> Graph {
    let mut uses = vec![0usize; graph.nodes.len()];
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs).copied();
    inputs.chain(graph.results()).for_each(|v| uses[v.node as usize] += 1);
    for id in 0..graph.nodes.len() {
        let node = &graph.nodes[id];
        let [a, b] = *node.inputs.as_slice() else { continue };
        let addition = matches!(&node.op, Op::Binary(op) if op.kind == BinaryKind::Add);
        let alone = |v: Value| uses[v.node as usize] == 1 && graph.ty(v).same_extents(&node.types[0]);
        if !addition || !alone(a) || !alone(b) {
            continue;
        }
        let (Some((x, from)), Some((y, more))) = (product(&graph, graph.node(a)), product(&graph, graph.node(b)))
        else {
            continue;
        };
        let height = |p: &Product| p.left[0].rows.len();
        if height(&x) != height(&y) || x.left.len() + y.left.len() > LEFTS || x.right.len() + y.right.len() > 2 {
            continue;
        }
        let (from, more) = (from.split_at(x.left.len()), more.split_at(y.left.len()));
        let op = Product {
            left: [x.left, y.left].concat(),
            right: x.right.into_iter().zip(y.right).map(|(x, y)| [x, y].concat()).collect(),
            after: vec![None],
        };
        let inputs = [from.0, more.0, from.1, more.1].concat();
        let node = &mut graph.nodes[id];
        *node = Node { op: op.into(), inputs, types: node.types.clone(), scope: node.scope };
    }
    graph
}

/// Products of one left side with variables become one. As nothing computes a variable, no member
/// of such a group depends on another.
///
/// A gate and what it gates stay apart: then one of them is multiplied with the other while it is
/// in cache ([`super::epilogue`]), which saves more passes over memory than packing the left side
/// again costs.
fn together(mut graph: Graph) -> Graph {
    let mut groups: Vec<(Product, Vec<u32>)> = vec![];
    let mut latest: HashMap<Value, Vec<usize>> = HashMap::new();
    let mut users: Vec<Vec<u32>> = vec![vec![]; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| users[v.node as usize].push(id as u32));
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        let Some((op, operands)) = product(&graph, node) else { continue };
        if op.left.len() > 1 || op.right.len() > 1 || !is_given(&graph, operands[1]) {
            continue;
        }
        let known = latest.entry(operands[0]).or_default();
        let mine = elementwise(&graph, &users, id as u32);
        let apart = |other: &u32| elementwise(&graph, &users, *other).is_disjoint(&mine);
        let open = |g: &&usize| {
            let (lead, members) = &groups[**g];
            lead.left == op.left && members.len() < RESULTS && members.iter().all(apart)
        };
        match known.iter().find(open) {
            Some(g) => groups[*g].1.push(id as u32),
            None => {
                known.push(groups.len());
                groups.push((op, vec![id as u32]));
            }
        }
    }
    let mut renamed: HashMap<Value, Value> = HashMap::new();
    for (_, members) in groups.iter().filter(|g| g.1.len() > 1) {
        merge(&mut graph, members, &mut renamed);
    }
    if renamed.is_empty() {
        return graph;
    }
    rename(&mut graph, |v| *v = renamed.get(v).copied().unwrap_or(*v));
    order(prune(graph))
}

/// What is computed from a product element by element, as far as a chain may reach.
fn elementwise(graph: &Graph, users: &[Vec<u32>], product: u32) -> BTreeSet<u32> {
    let ty = &graph.nodes[product as usize].types[0];
    let (mut found, mut open) = (BTreeSet::new(), vec![product]);
    while let Some(id) = open.pop() {
        for user in &users[id as usize] {
            let node = &graph.nodes[*user as usize];
            let follows = is_elementwise(&node.op) && node.types[0].same_extents(ty);
            if follows && found.len() < 32 && found.insert(*user) {
                open.push(*user);
            }
        }
    }
    found
}

/// Whether a value is a view of what the program is given.
fn is_given(graph: &Graph, v: Value) -> bool {
    match &graph.node(v).op {
        Op::Var(_) | Op::Input(_) => true,
        op => op.rule().is_view() && graph.node(v).inputs.len() == 1 && is_given(graph, graph.node(v).inputs[0]),
    }
}

/// Makes one node of several, in place of the last; what the others gave is renamed.
fn merge(graph: &mut Graph, members: &[u32], renamed: &mut HashMap<Value, Value>) {
    let last = *members.last().expect("a group is not empty");
    let mut joined = Product { left: vec![], right: vec![], after: vec![] };
    let (mut inputs, mut types) = (vec![], vec![]);
    for (port, id) in members.iter().enumerate() {
        let node = &graph.nodes[*id as usize];
        let (op, operands) = product(graph, node).expect("groups hold products");
        if port == 0 {
            (joined.left, inputs) = (op.left, vec![operands[0]]);
        }
        joined.right.extend(op.right);
        joined.after.extend(op.after);
        inputs.extend(&operands[1..]);
        types.push(node.types[0].clone());
        renamed.insert(Value { node: *id, port: 0 }, Value { node: last, port: port as u16 });
    }
    let scope = graph.nodes[members[0] as usize].scope;
    graph.nodes[last as usize] = Node { op: joined.into(), inputs, types, scope };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::trace::Handle;
    use crate::ops::contraction::{einsum, linear};
    use crate::ops::elementwise as ew;
    use crate::testing::{CPU, Given, check, check_cpu, real, traced, with_gradients};

    fn products(graph: &Graph) -> Vec<String> {
        let graph = prune(join(prune(graph.clone())));
        let names = graph.nodes.iter().filter(|n| matches!(n.op, Op::Product(_) | Op::Einsum(_)));
        names.map(|n| format!("{}{}", n.op.rule().name(), n.op.rule().attributes())).collect()
    }

    /// Three projections of one value, of different widths.
    fn projections(x: &[Handle]) -> Vec<Handle> {
        (1..4).map(|i| linear(x[0], x[i])).collect()
    }

    fn given() -> Vec<Given> {
        vec![real(&[2, 3, 4], 1), real(&[5, 4], 2), real(&[1, 4], 3), real(&[6, 4], 4)]
    }

    #[test]
    fn projections_are_one_product_and_the_gradient_of_what_is_projected_another() {
        assert_eq!(products(&traced(&given(), projections)), ["product1x3"]);
        let (graph, _) = with_gradients(&given(), &projections);
        let found = products(&graph);
        let count = |name: &str| found.iter().filter(|n| n.starts_with(name)).count();
        // The gradients by the weights are on their own.
        assert_eq!((count("product1x3"), count("product3x1"), count("einsum"), found.len()), (1, 1, 3, 5));
        check(&given(), projections);
    }

    #[test]
    fn what_is_read_elsewhere_is_no_summand() {
        let f = |x: &[Handle]| {
            let parts: Vec<Handle> = (0..3).map(|i| linear(x[0], x[1 + i])).collect();
            let sum = parts.iter().copied().reduce(ew::add).expect("there are three");
            vec![ew::add(sum, linear(x[0], x[4])), parts[0]]
        };
        let mut given = vec![real(&[3, 4], 0)];
        given.extend((1..5).map(|i| real(&[5, 4], i)));
        check(&given, f);
        assert_eq!(products(&traced(&given, f)).len(), 4, "what is added to each other is no group");
        let f = |x: &[Handle]| {
            vec![ew::add(ew::add(einsum(&[x[0], x[1]], &[&[0, 1], &[1, 2]], &[0, 2]), linear(x[0], x[2])), x[3])]
        };
        let given = [real(&[3, 4], 0), real(&[4, 5], 1), real(&[5, 4], 2), real(&[5], 3)];
        assert_eq!(products(&traced(&given, f)), ["product2x1"]);
        check(&given, f);
    }

    #[test]
    fn any_order_of_dimensions_is_right() {
        // Results by columns, operands transposed, several dimensions in each group.
        let f = |x: &[Handle]| {
            let (a, b, c) = (x[0], x[1], x[2]);
            let first = einsum(&[a, b], &[&[0, 1, 2, 3], &[3, 4, 1]], &[0, 2, 4]);
            let second = einsum(&[a, c], &[&[0, 1, 2, 3], &[4, 1, 3, 5]], &[0, 2, 4, 5]);
            let third = einsum(&[b, a], &[&[3, 4, 1], &[0, 1, 2, 3]], &[4, 2, 0]);
            vec![first, second, third]
        };
        let given = [real(&[2, 3, 4, 5], 0), real(&[5, 6, 3], 1), real(&[2, 3, 5, 7], 2)];
        check_cpu(&given, &f, CPU);
        assert_eq!(products(&traced(&given, f)), ["product1x2", "einsumdeb,abcd->eca"]);
    }

    #[test]
    fn a_gate_and_what_it_gates_stay_apart() {
        let gated = |x: &[Handle]| {
            let gate = ew::activation::silu(linear(x[0], x[1]));
            vec![ew::mul(gate, linear(x[0], x[2]))]
        };
        let given = [real(&[3, 4], 0), real(&[5, 4], 1), real(&[5, 4], 2)];
        assert_eq!(products(&traced(&given, gated)).len(), 2);
        check_cpu(&given, &gated, CPU);
    }

    #[test]
    fn products_with_what_is_computed_stay_alone() {
        let f = |x: &[Handle]| {
            let first = linear(x[0], x[1]);
            vec![first, linear(x[0], ew::exp(x[1])), linear(x[0], first)]
        };
        let given = [real(&[4, 4], 0), real(&[4, 4], 1)];
        assert_eq!(products(&traced(&given, f)).len(), 3);
        check(&given, f);
    }
}
