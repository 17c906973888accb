//! Squared magnitudes straight from the transform: `sum(y * y)` over the real and the imaginary part
//! of a short-time transform `y` that nothing else reads becomes part of the transform, so that the
//! complex spectrum, twice as large, is never in memory.

use super::rewrite::{push, rewrite};
use crate::graph::{Graph, Node, TensorType, Value};
use crate::ops::Op;
use crate::ops::elementwise::BinaryKind;
use crate::ops::reduce::Primitive;
use crate::ops::stft::Stft;

/// The graph with spectra squared where they are made. What is not read any more is left.
pub fn square(graph: Graph) -> Graph {
    let mut reads = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|n| &n.inputs).chain(&graph.outputs).for_each(|v| reads[v.node as usize] += 1);
    graph.updates.iter().map(|u| u.1).for_each(|v| reads[v.node as usize] += 1);
    graph.taps.iter().map(|t| t.1).for_each(|v| reads[v.node as usize] += 1);
    // The transform of a sum of squares of its parts: both factors are the only reads.
    let found: Vec<Option<Node>> = graph.nodes.iter().map(|node| squared(&graph, node, &reads)).collect();
    let mut at = 0;
    let mut became: Vec<Vec<Value>> = vec![];
    rewrite(graph, |graph, mut node| {
        if let Some(better) = &found[at] {
            node = better.clone();
            for v in &mut node.inputs {
                *v = became[v.node as usize][v.port as usize];
            }
        }
        at += 1;
        let values = push(graph, node);
        became.push(values.clone());
        values
    })
}

/// The transform that a sum of squares is.
fn squared(graph: &Graph, node: &Node, reads: &[usize]) -> Option<Node> {
    let Op::Reduce(sum) = &node.op else { return None };
    let product = graph.node(node.inputs[0]);
    let Op::Binary(op) = &product.op else { return None };
    let [a, b] = product.inputs[..] else { return None };
    let source = graph.node(a);
    let Op::Stft(op_stft) = &source.op else { return None };
    let last = graph.ty(a).dims.len() - 1;
    let fits = sum.kind == Primitive::Sum
        && sum.positions == [last]
        && op.kind == BinaryKind::Mul
        && a == b
        && !op_stft.power
        && reads[a.node as usize] == 2
        && reads[node.inputs[0].node as usize] == 1;
    fits.then(|| Node {
        op: Op::Stft(Stft { power: true, ..op_stft.clone() }),
        inputs: source.inputs.clone(),
        types: vec![TensorType::new(node.types[0].dims.clone(), node.types[0].dtype)],
        scope: node.scope,
    })
}

#[cfg(test)]
mod tests {
    use crate::devices::cpu::optimize;
    use crate::graph::trace::Handle;
    use crate::ops::elementwise as ew;
    use crate::ops::reduce::{Kind, reduce};
    use crate::ops::stft::{Edge, Framing, stft};
    use crate::testing::{check, real, traced};

    fn power(h: &[Handle]) -> Vec<Handle> {
        let y = stft(h[0], h[1], Framing { hop: 3, pad: 4, edge: Edge::Reflect });
        vec![reduce(ew::mul(y, y), Kind::Sum, &[3])]
    }

    #[test]
    fn a_power_spectrum_is_one_operation() {
        let given = [real(&[2, 40], 1), real(&[8], 2)];
        let graph = optimize(traced(&given, power));
        let names: Vec<_> = graph.nodes.iter().map(|n| n.op.rule().name()).collect();
        assert!(names.contains(&"power_spectrum") && !names.contains(&"stft") && !names.contains(&"sum"), "{names:?}");
        // The value against the reference device, and gradients, which read the spectrum itself.
        check(&given, power);
    }

    #[test]
    fn a_spectrum_that_is_read_stays() {
        let given = [real(&[1, 20], 1), real(&[8], 2)];
        let both = |h: &[Handle]| {
            let y = stft(h[0], h[1], Framing { hop: 3, pad: 4, edge: Edge::Zeros });
            vec![reduce(ew::mul(y, y), Kind::Sum, &[3]), y]
        };
        let graph = optimize(traced(&given, both));
        assert!(graph.nodes.iter().all(|n| n.op.rule().name() != "power_spectrum"));
        check(&given, both);
    }
}
