//! Removes nodes that no result needs.

use super::rewrite::rename;
use crate::graph::Graph;
use crate::ops::Op;

/// The graph without nodes that no output, update or tap depends on. Arguments and variables
/// stay declared.
pub fn prune(mut graph: Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    for v in graph.results() {
        live[v.node as usize] = true;
    }
    for id in (0..graph.nodes.len()).rev() {
        // Arguments keep their node: binding reads their sizes from it.
        live[id] |= matches!(graph.nodes[id].op, Op::Input(_));
        if live[id] {
            for v in &graph.nodes[id].inputs {
                live[v.node as usize] = true;
            }
        }
    }
    let mut renumbered = vec![0u32; graph.nodes.len()];
    let mut next = 0;
    for (id, alive) in live.iter().enumerate() {
        renumbered[id] = next;
        next += *alive as u32;
    }
    let mut index = 0;
    graph.nodes.retain(|_| {
        index += 1;
        live[index - 1]
    });
    rename(&mut graph, |v| v.node = renumbered[v.node as usize]);
    graph
}
