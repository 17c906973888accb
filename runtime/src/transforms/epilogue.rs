//! Attaches chains to the matrix products that they read: bias, activation, gate and residual are
//! computed on blocks of the result that are still in cache, and the product itself is stored only
//! if something else reads it.
//!
//! A chain joins the product if everything else that it reads is there before the product runs. Of
//! several the first joins.

use super::order::arrange;
use super::products::product;
use super::prune::prune;
use super::rewrite::rename;
use crate::graph::{DType, Graph, Node, Value};
use crate::ops::Op;
use crate::ops::product::After;
use std::collections::HashMap;

/// The graph with chains attached to products.
pub fn attach(graph: Graph) -> Graph {
    let mut graph = given_first(graph);
    let mut readers: Vec<Vec<u32>> = vec![vec![]; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| readers[v.node as usize].push(id as u32));
    }
    let mut results = vec![false; graph.nodes.len()];
    graph.results().for_each(|v| results[v.node as usize] = true);
    let mut joined = vec![false; graph.nodes.len()];
    let mut renamed: HashMap<Value, Value> = HashMap::new();
    for id in 0..graph.nodes.len() as u32 {
        let node = &graph.nodes[id as usize];
        let Some((mut op, mut inputs)) = product(&graph, node) else { continue };
        let mut found: Vec<(usize, u32)> = vec![];
        for j in 0..op.right.len() {
            let v = Value { node: id, port: j as u16 };
            let Some(chain) = chain_of(&graph, v, &readers[id as usize], &joined) else { continue };
            let others = readers[id as usize].iter().filter(|r| **r != chain);
            let keep = results[id as usize] || others.clone().any(|r| graph.nodes[*r as usize].inputs.contains(&v));
            op.after[j] = Some(after(&graph, v, chain, keep, &mut inputs));
            joined[chain as usize] = true;
            found.push((j, chain));
        }
        if found.is_empty() {
            continue;
        }
        let mut types = vec![];
        for j in 0..op.right.len() {
            let (own, more) = op.ports(j);
            if let Some(port) = own {
                types.push(node.types[j].clone());
                renamed.insert(Value { node: id, port: j as u16 }, Value { node: id, port: port as u16 });
            }
            if let Some((_, chain)) = found.iter().find(|f| f.0 == j) {
                types.extend(graph.nodes[*chain as usize].types.iter().cloned());
                for (k, port) in more.enumerate() {
                    let old = Value { node: *chain, port: k as u16 };
                    renamed.insert(old, Value { node: id, port: port as u16 });
                }
            }
        }
        let scope = node.scope;
        graph.nodes[id as usize] = Node { op: op.into(), inputs, types, scope };
    }
    rename(&mut graph, |v| *v = renamed.get(v).copied().unwrap_or(*v));
    prune(graph)
}

/// The chain that a product's value goes through.
fn chain_of(graph: &Graph, v: Value, readers: &[u32], joined: &[bool]) -> Option<u32> {
    let fits = |id: &&u32| {
        let node = &graph.nodes[**id as usize];
        matches!(node.op, Op::Chain(_))
            && !joined[**id as usize]
            && node.inputs.contains(&v)
            && node.inputs.iter().all(|i| *i == v || i.node < v.node)
            && node.types[0].same_extents(graph.ty(v))
            && node.types.iter().any(|t| t.dtype == DType::F32)
    };
    readers.iter().find(fits).copied()
}

fn after(graph: &Graph, v: Value, chain: u32, keep: bool, inputs: &mut Vec<Value>) -> After {
    let node = &graph.nodes[chain as usize];
    let Op::Chain(op) = &node.op else { unreachable!("a chain was found") };
    let mut place = |i: &Value| {
        (*i != v).then(|| {
            inputs.iter().position(|k| k == i).unwrap_or_else(|| {
                inputs.push(*i);
                inputs.len() - 1
            })
        })
    };
    After { chain: op.clone(), inputs: node.inputs.iter().map(&mut place).collect(), keep }
}

/// What the program is given, and views of it, before everything else.
fn given_first(mut graph: Graph) -> Graph {
    let mut given = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        given[id] = match &node.op {
            Op::Input(_) | Op::Var(_) => true,
            op => op.rule().is_view() && node.inputs.iter().all(|v| given[v.node as usize]),
        };
    }
    let (first, rest): (Vec<u32>, Vec<u32>) = (0..graph.nodes.len() as u32).partition(|id| given[*id as usize]);
    arrange(&mut graph, &[first, rest].concat());
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::cpu::optimize;
    use crate::graph::trace::Handle;
    use crate::ops::contraction::{einsum, linear};
    use crate::ops::elementwise::{self as ew, activation};
    use crate::testing::{CPU, Given, check_cpu, real, traced, with_gradients};

    /// How many nodes of each kind are left.
    fn left(graph: &Graph) -> HashMap<&'static str, usize> {
        let mut found = HashMap::new();
        for node in &optimize(graph.clone()).nodes {
            *found.entry(node.op.rule().name()).or_default() += 1;
        }
        found
    }

    /// A feed-forward layer with its residual.
    fn mlp(x: &[Handle]) -> Vec<Handle> {
        let inner = activation::gelu(ew::add(linear(x[0], x[1]), x[2]));
        vec![ew::add(x[0], ew::add(linear(inner, x[3]), x[4]))]
    }

    fn given() -> Vec<Given> {
        vec![real(&[2, 3, 4], 1), real(&[6, 4], 2), real(&[6], 3), real(&[4, 6], 4), real(&[4], 5)]
    }

    #[test]
    fn a_feed_forward_layer_is_two_nodes() {
        let found = left(&traced(&given(), mlp));
        assert_eq!((found.get("product"), found.get("chain"), found.get("einsum")), (Some(&2), None, None));
        check_cpu(&given(), &mlp, CPU);
    }

    #[test]
    fn the_derivative_of_an_activation_follows_its_product() {
        let (graph, _) = with_gradients(&given(), &mlp);
        let graph = optimize(graph);
        let long = graph.nodes.iter().filter(|n| match &n.op {
            Op::Product(op) => op.after.iter().flatten().any(|a| a.chain.steps.len() > 12 && a.chain.inputs == 3),
            _ => false,
        });
        assert_eq!(long.count(), 1);
    }

    #[test]
    fn each_of_several_results_has_its_chain() {
        let f = |x: &[Handle]| {
            let part = |i: usize| ew::add(linear(x[0], x[i]), x[i + 3]);
            let gate = activation::silu(linear(x[0], x[7]));
            vec![part(1), part(2), ew::mul(gate, part(3))]
        };
        let mut given = vec![real(&[2, 3, 4], 0)];
        given.extend((1..4).map(|i| real(&[5, 4], i)));
        given.extend((4..7).map(|i| real(&[5], i)));
        given.push(real(&[5, 4], 7));
        check_cpu(&given, &f, CPU);
        let found = left(&traced(&given, f));
        assert_eq!((found["product"], found.get("chain")), (2, None), "the gate is on its own");
    }

    #[test]
    fn what_comes_later_keeps_a_chain_apart() {
        let f = |x: &[Handle]| {
            let first = einsum(&[x[0], x[1]], &[&[0, 1], &[1, 2]], &[0, 2]);
            let second = ew::exp(einsum(&[first, x[1]], &[&[0, 1], &[1, 2]], &[0, 2]));
            vec![ew::add(first, second), ew::mul(second, x[0])]
        };
        let given = [real(&[4, 4], 0), real(&[4, 4], 1)];
        check_cpu(&given, &f, CPU);
    }

    #[test]
    fn masks_and_broadcasts_are_read_by_blocks() {
        let f = |x: &[Handle]| {
            let y = einsum(&[x[0], x[1]], &[&[0, 1], &[1, 2]], &[0, 2]);
            let rows = crate::ops::movement::permute(x[3], &[1, 0]);
            vec![ew::select(x[2], ew::add(y, rows), x[4]), ew::cast(y, DType::I32)]
        };
        let given = [
            real(&[70, 40], 0),
            real(&[40, 90], 1),
            crate::testing::mask(&[70, 90], 2),
            real(&[90, 70], 3),
            real(&[90], 4),
        ];
        let forward = |x: &[Handle]| vec![f(x)[0]];
        check_cpu(&given, &forward, CPU);
    }
}
