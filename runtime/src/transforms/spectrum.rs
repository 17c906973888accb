//! Spectra become what is made of them where they are made, so that they, several times as large, are
//! never in memory: `sum(y * y)` over the real and the imaginary part of a short-time transform `y`, and
//! the product of that with a bank of filters. Each only where nothing else reads what is left out.

use super::bands::filters;
use super::rewrite::{push, rewrite};
use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::elementwise::BinaryKind;
use crate::ops::reduce::Primitive;
use crate::ops::stft::{Output, Stft};

/// The graph with spectra squared and filtered where they are made. What is not read any more is left.
pub fn join(graph: Graph) -> Graph {
    replaced(replaced(graph, squared), filtered)
}

/// The graph with better nodes, where `better` finds them.
fn replaced(graph: Graph, better: impl Fn(&Graph, &Node, &[usize]) -> Option<Node>) -> Graph {
    let mut reads = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|n| &n.inputs).chain(&graph.outputs).for_each(|v| reads[v.node as usize] += 1);
    graph.updates.iter().map(|u| u.1).for_each(|v| reads[v.node as usize] += 1);
    graph.taps.iter().map(|t| t.1).for_each(|v| reads[v.node as usize] += 1);
    let found: Vec<Option<Node>> = graph.nodes.iter().map(|node| better(&graph, node, &reads)).collect();
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

/// The transform that a sum of squares of its parts is: both factors are the only reads.
fn squared(graph: &Graph, node: &Node, reads: &[usize]) -> Option<Node> {
    let Op::Reduce(sum) = &node.op else { return None };
    let product = graph.node(node.inputs[0]);
    let Op::Binary(op) = &product.op else { return None };
    let [a, b] = product.inputs[..] else { return None };
    let source = graph.node(a);
    let Op::Stft(stft) = &source.op else { return None };
    let last = graph.ty(a).dims.len() - 1;
    let fits = sum.kind == Primitive::Sum
        && sum.positions == [last]
        && op.kind == BinaryKind::Mul
        && a == b
        && stft.output == Output::Parts
        && reads[a.node as usize] == 2
        && reads[node.inputs[0].node as usize] == 1;
    let op = Op::Stft(Stft { output: Output::Power, ..stft.clone() });
    fits.then(|| Node { op, inputs: source.inputs.clone(), types: node.types.clone(), scope: node.scope })
}

/// The transform that a bank of filters over a power spectrum is.
fn filtered(graph: &Graph, node: &Node, reads: &[usize]) -> Option<Node> {
    let bank = filters(graph, node)?;
    let (power, table) = (node.inputs[bank.x], node.inputs[1 - bank.x]);
    let source = graph.node(power);
    let Op::Stft(stft) = &source.op else { return None };
    let fits = stft.output == Output::Power
        && bank.summed + 2 == graph.ty(power).dims.len()
        && !bank.transposed
        && reads[power.node as usize] == 1;
    let rows = graph.ty(table).dims[0].clone();
    let op = Op::Stft(Stft { output: Output::Filtered(rows), ..stft.clone() });
    let inputs = [&source.inputs[..], &[table]].concat();
    fits.then(|| Node { op, inputs, types: node.types.clone(), scope: node.scope })
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
