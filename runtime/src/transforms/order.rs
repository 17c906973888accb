//! Puts nodes in an order in which every node comes after its inputs, keeping the given order where
//! it may: what transforms call that put a node in a place before its inputs.

use super::rewrite::rename;
use crate::graph::{Graph, Node};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The graph in order.
///
/// # Panics
/// When nodes depend on each other in a circle.
pub fn order(mut graph: Graph) -> Graph {
    let count = graph.nodes.len();
    let mut missing: Vec<usize> = graph.nodes.iter().map(|n| n.inputs.len()).collect();
    let mut users: Vec<Vec<u32>> = vec![vec![]; count];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| users[v.node as usize].push(id as u32));
    }
    let mut ready: BinaryHeap<Reverse<u32>> =
        (0..count).filter(|id| missing[*id] == 0).map(|id| Reverse(id as u32)).collect();
    let mut sequence = Vec::with_capacity(count);
    while let Some(Reverse(id)) = ready.pop() {
        sequence.push(id);
        for user in &users[id as usize] {
            missing[*user as usize] -= 1;
            if missing[*user as usize] == 0 {
                ready.push(Reverse(*user));
            }
        }
    }
    assert_eq!(sequence.len(), count, "a graph has no circles");
    arrange(&mut graph, &sequence);
    graph
}

/// Puts the nodes in this sequence of their numbers.
pub(super) fn arrange(graph: &mut Graph, sequence: &[u32]) {
    let mut place = vec![0u32; sequence.len()];
    sequence.iter().enumerate().for_each(|(to, from)| place[*from as usize] = to as u32);
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = sequence.iter().filter_map(|id| nodes[*id as usize].take()).collect();
    rename(graph, |v| v.node = place[v.node as usize]);
}
