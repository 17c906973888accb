//! Joins a projection onto classes with the cross-entropy of what it gives, and with the gradients
//! of both ([`LinearCrossEntropy`]): a language model's head. Its logits are the largest value of a
//! training step, and nothing but the loss and its gradient reads them.
//!
//! ```text
//! h, w -> einsum (-> + bias) -> cross_entropy -> .. -> g -> cross_entropy_grad -> einsum   by h
//!                                                                              -> einsum   by w
//!                                                                              -> sum      by bias
//! ```
//!
//! It is left as it is where anything else reads the logits or their gradient (an accuracy, a
//! penalty), or where the gradient by the losses depends on the losses themselves: it is an input of
//! the joined operation. A device splits small heads into one block: nothing is lost with these.

use super::order::order;
use super::products::product;
use super::prune::prune;
use super::rewrite::rename;
use crate::graph::{Graph, Node, Value};
use crate::ops::Op;
use crate::ops::elementwise::BinaryKind;
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use crate::ops::loss::CrossEntropyOptions;
use crate::ops::product::{Axes, Product};
use crate::ops::reduce::Primitive;
use std::collections::HashMap;

/// The graph with its heads joined with their losses.
pub fn join(graph: Graph) -> Graph {
    if !graph.nodes.iter().any(|n| matches!(n.op, Op::CrossEntropy(_))) {
        return graph;
    }
    let mut graph = prune(graph);
    let mut readers: HashMap<Value, Vec<u32>> = HashMap::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(id as u32));
    }
    // A result has a reader that is no node.
    graph.results().for_each(|v| readers.entry(v).or_default().push(u32::MAX));
    let seen = Seen { graph: &graph, readers };
    let found: Vec<Head> = (0..graph.nodes.len() as u32).filter_map(|id| seen.head(id)).collect();
    if found.is_empty() {
        return graph;
    }
    let mut renamed: HashMap<Value, Value> = HashMap::new();
    for Head { place, node, instead } in found {
        renamed.extend(instead.into_iter().enumerate().map(|(port, v)| (v, Value { node: place, port: port as u16 })));
        graph.nodes[place as usize] = node;
    }
    rename(&mut graph, |v| *v = renamed.get(v).copied().unwrap_or(*v));
    // What reads the losses may stand before the node that gives them now.
    prune(order(graph))
}

/// A head that can be joined.
struct Head {
    /// Where the joined node goes.
    place: u32,
    node: Node,
    /// The values that its outputs replace.
    instead: Vec<Value>,
}

/// The projection that logits come from.
struct Projection {
    hidden: Value,
    weight: Value,
    bias: Option<Value>,
    /// The module that projects: most of the work is its.
    scope: u32,
    /// The weight's dimension of classes.
    classes: usize,
}

struct Seen<'g> {
    graph: &'g Graph,
    readers: HashMap<Value, Vec<u32>>,
}

impl Seen<'_> {
    fn readers(&self, node: u32, port: u16) -> &[u32] {
        self.readers.get(&Value { node, port }).map_or(&[], Vec::as_slice)
    }

    fn head(&self, loss: u32) -> Option<Head> {
        let node = &self.graph.nodes[loss as usize];
        let Op::CrossEntropy(op) = &node.op else { return None };
        let [logits, targets] = *node.inputs.as_slice() else { return None };
        let from = self.projection(logits)?;
        let (losses, ty) = (Value { node: loss, port: 0 }, node.types[0].clone());
        let others: Vec<u32> = self.readers[&logits].iter().copied().filter(|r| *r != loss).collect();
        let joined = |wanted| LinearCrossEntropy {
            options: op.options,
            classes: from.classes,
            bias: from.bias.is_some(),
            wanted,
        };
        let mut inputs = vec![from.hidden, from.weight, targets];
        inputs.extend(from.bias);
        match *others.as_slice() {
            [] if self.readers(loss, 1).is_empty() => {
                let node = Node { op: joined([false; 3]).into(), inputs, types: vec![ty], scope: from.scope };
                Some(Head { place: loss, node, instead: vec![losses] })
            }
            [grad] if self.readers(loss, 1).iter().all(|r| *r == grad) => {
                let g = self.gradient(grad, (logits, targets, loss), op.options)?;
                let by = self.gradients(grad, &from)?;
                inputs.push(g);
                let (mut instead, mut types) = (vec![losses], vec![ty]);
                for id in by.into_iter().flatten() {
                    instead.push(Value { node: id, port: 0 });
                    types.push(self.graph.nodes[id as usize].types[0].clone());
                }
                let op = joined(by.map(|id| id.is_some()));
                let node = Node { op: op.into(), inputs, types, scope: from.scope };
                Some(Head { place: grad, node, instead })
            }
            _ => None,
        }
    }

    /// The projection that gives `logits`, where nothing else reads what lies between.
    fn projection(&self, logits: Value) -> Option<Projection> {
        let node = self.graph.node(logits);
        let alone = |v: &Value| self.readers[v].len() == 1;
        let project = |v: Value| {
            let (op, operands) = single(self.graph, self.graph.node(v))?;
            let (left, right) = (&op.left[0], &op.right[0][0]);
            let fits = is_rows(left, self.graph.ty(v).rank() - 1) && right.rows.len() == 1 && right.columns.len() == 1;
            let classes = right.columns[0];
            let scope = self.graph.node(v).scope;
            fits.then_some(Projection { hidden: operands[0], weight: operands[1], bias: None, scope, classes })
        };
        match (&node.op, node.inputs.as_slice()) {
            (Op::Binary(op), [a, b]) if op.kind == BinaryKind::Add => {
                [(*a, *b), (*b, *a)].into_iter().find_map(|(product, bias)| {
                    let whole = self.graph.ty(product).same_extents(&node.types[0]);
                    let fits = whole && alone(&product) && self.graph.ty(bias).rank() == 1;
                    fits.then(|| project(product))?.map(|p| Projection { bias: Some(bias), ..p })
                })
            }
            _ => project(logits),
        }
    }

    /// The gradient by the losses, which the gradient node multiplies with.
    fn gradient(
        &self,
        grad: u32,
        (logits, targets, loss): (Value, Value, u32),
        options: CrossEntropyOptions,
    ) -> Option<Value> {
        let node = self.graph.nodes.get(grad as usize)?;
        let Op::CrossEntropyGrad(op) = &node.op else { return None };
        let [x, t, lse, g] = *node.inputs.as_slice() else { return None };
        let same = op.options == options && (x, t, lse) == (logits, targets, Value { node: loss, port: 1 });
        (same && !self.depends(g.node, loss)).then_some(g)
    }

    /// Whether a node needs another.
    fn depends(&self, node: u32, on: u32) -> bool {
        let mut needed = vec![false; self.graph.nodes.len()];
        needed[node as usize] = true;
        for id in (on..=node).rev() {
            if needed[id as usize] {
                self.graph.nodes[id as usize].inputs.iter().for_each(|v| needed[v.node as usize] = true);
            }
        }
        needed[on as usize]
    }

    /// The nodes that compute the gradients by the hidden rows, the weight and the bias from that by
    /// the logits, if it is read by these alone.
    fn gradients(&self, grad: u32, of: &Projection) -> Option<[Option<u32>; 3]> {
        let rank = self.graph.nodes[grad as usize].types[0].rank();
        let rows = rank - 1;
        let all = |axes: &[usize]| axes.iter().copied().eq(0..rows);
        let own = Value { node: grad, port: 0 };
        let mut found = [None; 3];
        for reader in self.readers(grad, 0) {
            let node = self.graph.nodes.get(*reader as usize)?;
            let which = match (&node.op, single(self.graph, node)) {
                (Op::Reduce(op), _) if op.kind == Primitive::Sum && all(&op.positions) && of.bias.is_some() => 2,
                (_, Some((op, operands))) => {
                    let (left, right) = (&op.left[0], &op.right[0][0]);
                    let down = |x: &Axes| x.rows == [rows] && all(&x.columns);
                    let across = right.columns == [rows] && all(&right.rows);
                    let (a, b) = (operands[0], operands[1]);
                    if (a, b) == (own, of.weight) && is_rows(left, rows) && right.rows == [of.classes] {
                        0
                    } else if (a, b) == (own, of.hidden) && of.classes == 0 && down(left) && across
                        || (a, b) == (of.hidden, own) && of.classes == 1 && down(left) && across
                    {
                        1
                    } else {
                        return None;
                    }
                }
                _ => return None,
            };
            if found[which].replace(*reader).is_some() {
                return None;
            }
        }
        Some(found)
    }
}

/// A product of one left and one right side.
fn single(graph: &Graph, node: &Node) -> Option<(Product, Vec<Value>)> {
    product(graph, node).filter(|(op, _)| op.left.len() == 1 && op.right.len() == 1 && op.after[0].is_none())
}

/// Whether a tensor is a matrix of its last dimension by `rows` others, in order.
fn is_rows(axes: &Axes, rows: usize) -> bool {
    axes.rows.iter().copied().eq(0..rows) && axes.columns == [rows]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::trace::{Handle, op1};
    use crate::ops::contraction::{einsum, linear};
    use crate::ops::leaf::Detach;
    use crate::ops::loss::{counted, cross_entropy};
    use crate::ops::{elementwise as ew, reduce};
    use crate::testing::{CPU, Given, check, check_cpu, index_values, indices, real, traced, with_gradients};

    const SMOOTH: CrossEntropyOptions =
        CrossEntropyOptions { ignore_index: Some(0), label_smoothing: 0.1, z_loss: 1e-2 };

    fn heads(graph: &Graph) -> Vec<LinearCrossEntropy> {
        let graph = join(crate::transforms::common::join(prune(graph.clone())));
        let of = |n: &Node| if let Op::LinearCrossEntropy(op) = &n.op { Some(op.clone()) } else { None };
        let heads = graph.nodes.iter().filter_map(of).collect();
        let left = |n: &Node| matches!(n.op, Op::Einsum(_) | Op::CrossEntropy(_) | Op::CrossEntropyGrad(_));
        assert!(!graph.nodes.iter().any(left), "{graph:?}");
        heads
    }

    fn given(rows: &[usize], classes: usize, depth: usize) -> Vec<Given> {
        let hidden: Vec<usize> = rows.iter().copied().chain([depth]).collect();
        vec![real(&hidden, 1), real(&[classes, depth], 2), real(&[classes], 3), indices(rows, classes, 4)]
    }

    /// Joined forward and backward, and right: against the operations one by one.
    fn joins(given: &[Given], wanted: [bool; 3], f: impl Fn(&[Handle]) -> Vec<Handle>) {
        let forward = heads(&traced(given, &f));
        assert_eq!(forward.iter().map(|h| h.wanted).collect::<Vec<_>>(), [[false; 3]]);
        let both = heads(&with_gradients(given, &f).0);
        assert_eq!(both.iter().map(|h| h.wanted).collect::<Vec<_>>(), [wanted]);
        check(given, f);
    }

    #[test]
    fn a_head_and_its_loss_are_one() {
        for (rows, classes, depth) in [(&[2, 3][..], 5, 4), (&[7], 1, 3), (&[1], 9, 1), (&[2, 1, 3], 4, 2)] {
            joins(&given(rows, classes, depth), [true, true, true], |x| {
                vec![cross_entropy(ew::add(linear(x[0], x[1]), x[2]), x[3], SMOOTH)]
            });
            let mean = |x: &[Handle]| {
                let each = cross_entropy(linear(x[0], x[1]), x[2], CrossEntropyOptions::default());
                let all: Vec<usize> = (0..rows.len()).collect();
                vec![ew::div(reduce::reduce(each, reduce::Kind::Sum, &all), counted(x[2], Some(-100)))]
            };
            let mut given = given(rows, classes, depth);
            given.remove(2);
            joins(&given, [true, true, false], mean);
        }
    }

    #[test]
    fn a_weight_may_lie_the_other_way() {
        let given = [real(&[2, 3, 4], 1), real(&[4, 5], 2), indices(&[2, 3], 5, 3)];
        let f = |a: usize, b: usize| {
            move |x: &[Handle]| {
                let labels: [&[u8]; 2] = [&[0, 1, 2], &[2, 3]];
                let logits = einsum(&[x[a], x[b]], &[labels[a], labels[b]], &[0, 1, 3]);
                vec![cross_entropy(logits, x[2], SMOOTH)]
            }
        };
        joins(&given, [true, true, false], f(0, 1));
        joins(&given, [true, true, false], f(1, 0));
    }

    #[test]
    fn rows_left_out_and_no_rows_at_all() {
        let mut all = given(&[4], 3, 2);
        all[3] = index_values(&[4], &[0, 0, 0, 0]);
        for given in [all, given(&[0], 3, 2)] {
            joins(&given, [true, true, true], |x| vec![cross_entropy(ew::add(x[2], linear(x[0], x[1])), x[3], SMOOTH)]);
        }
    }

    #[test]
    fn what_is_read_elsewhere_stays() {
        let given = given(&[2, 3], 5, 4);
        let logits = |x: &[Handle]| linear(x[0], x[1]);
        let loss = |x: &[Handle], logits| cross_entropy(logits, x[3], SMOOTH);
        let stays = |f: &dyn Fn(&[Handle]) -> Vec<Handle>| {
            for graph in [traced(&given, f), with_gradients(&given, f).0] {
                let graph = join(crate::transforms::common::join(prune(graph)));
                assert!(!graph.nodes.iter().any(|n| matches!(n.op, Op::LinearCrossEntropy(_))));
            }
            check(&given, f);
        };
        stays(&|x| {
            let logits = logits(x);
            vec![loss(x, logits), logits]
        });
        stays(&|x| {
            let logits = logits(x);
            vec![loss(x, logits), ew::mul(logits, logits)]
        });
        // The gradient by the losses depends on them.
        let square = |x: &[Handle]| {
            let each = loss(x, logits(x));
            vec![ew::mul(each, each)]
        };
        assert_eq!(heads(&traced(&given, square)).len(), 1);
        let graph = join(with_gradients(&given, &square).0);
        assert!(!graph.nodes.iter().any(|n| matches!(n.op, Op::LinearCrossEntropy(_))));
        check(&given, square);
    }

    #[test]
    fn what_is_not_wanted_is_not_computed() {
        let given = given(&[6], 5, 4);
        let f = |x: &[Handle]| vec![cross_entropy(linear(op1(Detach, &[x[0]]), x[1]), x[3], SMOOTH)];
        assert_eq!(heads(&with_gradients(&given, &f).0)[0].wanted, [false, true, false]);
        check_cpu(&given, &f, CPU);
    }
}
