//! Small algebra: what gradient rules and layers write in general and need not in particular.
//!
//! Each node is looked at once, after its inputs:
//!
//! * arithmetic that changes nothing (`x + 0`, `x - 0`, `x * 1`, `x / 1`, `-(-x)`, a cast to what
//!   it is) and gradients' stops give their operand;
//! * movement that changes nothing gives its operand, movement of movement of one kind is one
//!   movement, movement of a constant is a constant;
//! * arithmetic of constant numbers is done here, in double precision.
//!
//! `x * 0` stays: it is not 0 for an infinite `x`. `x + 0` gives `x`, which for `x = -0` differs in
//! the sign of the zero.

use super::rewrite::{push, rewrite};
use crate::graph::{DType, Graph, Node, Value};
use crate::ops::Op;
use crate::ops::elementwise::{BinaryKind, UnaryKind};
use crate::ops::leaf::{Constant, Fill};
use crate::ops::movement::{Permute, Reshape};

/// The graph without the operations that change nothing. Nodes that nothing needs any more stay;
/// see [`prune`](super::prune::prune).
pub fn simplify(graph: Graph) -> Graph {
    rewrite(graph, |graph, mut node| {
        // A node that was replaced by another may be simple in turn.
        for _ in 0..4 {
            match better(graph, &node) {
                Some(Better::Value(v)) => return vec![v],
                Some(Better::Node(op, inputs)) => node = Node { op, inputs, ..node },
                None => break,
            }
        }
        push(graph, node)
    })
}

/// What does the same as a node.
enum Better {
    /// A value that is there.
    Value(Value),
    /// Another operation with the same output.
    Node(Op, Vec<Value>),
}

fn better(graph: &Graph, node: &Node) -> Option<Better> {
    let ty = node.types.first()?;
    let input = |i: usize| node.inputs[i];
    // The operand itself, where it is not broadcast.
    let operand = |i: usize| graph.ty(input(i)).same_extents(ty).then_some(Better::Value(input(i)));
    let number = |i: usize| number(graph, input(i));
    match &node.op {
        Op::Detach(_) => operand(0),
        Op::Cast(op) if graph.ty(input(0)).dtype == op.dtype => operand(0),
        Op::Unary(op) => match (&graph.node(input(0)).op, op.kind) {
            (Op::Unary(inner), UnaryKind::Neg | UnaryKind::Not) if inner.kind == op.kind => {
                Some(Better::Value(graph.node(input(0)).inputs[0]))
            }
            _ if ty.dtype == DType::F32 => constant(unary(op.kind, number(0)?)?, node),
            _ => None,
        },
        Op::Binary(op) => {
            let (a, b) = (number(0), number(1));
            let fold = || a.zip(b).filter(|_| ty.dtype == DType::F32).and_then(|(a, b)| binary(op.kind, a, b));
            match op.kind {
                BinaryKind::Add | BinaryKind::Sub if b == Some(0.0) => operand(0),
                BinaryKind::Mul | BinaryKind::Div | BinaryKind::Pow if b == Some(1.0) => operand(0),
                BinaryKind::Add if a == Some(0.0) => operand(1),
                BinaryKind::Mul if a == Some(1.0) => operand(1),
                _ => None,
            }
            .or_else(|| constant(fold()?, node))
        }
        Op::Select(_) => match number(0) {
            Some(0.0) => operand(2),
            Some(_) => operand(1),
            None => None,
        },
        Op::Reduce(op) if op.positions.is_empty() => operand(0),
        Op::Reshape(_) | Op::Permute(_) | Op::Broadcast(_) => movement(graph, node),
        Op::Slice(_) => constant_of(graph, node),
        _ => None,
    }
}

fn movement(graph: &Graph, node: &Node) -> Option<Better> {
    if let Some(found) = constant_of(graph, node) {
        return Some(found);
    }
    let (x, ty) = (node.inputs[0], &node.types[0]);
    let before = graph.node(x);
    let through = |op: Op| Some(Better::Node(op, vec![before.inputs[0]]));
    match (&node.op, &before.op) {
        (Op::Reshape(_) | Op::Broadcast(_), _) if graph.ty(x).same_extents(ty) => Some(Better::Value(x)),
        (Op::Permute(op), _) if op.perm.iter().enumerate().all(|(i, p)| i == *p) => Some(Better::Value(x)),
        (Op::Reshape(_), Op::Reshape(_)) => through(Op::Reshape(Reshape { dims: ty.dims.clone() })),
        (Op::Broadcast(op), Op::Broadcast(_)) => through(Op::Broadcast(op.clone())),
        (Op::Permute(op), Op::Permute(first)) => {
            through(Op::Permute(Permute { perm: op.perm.iter().map(|p| first.perm[*p]).collect() }))
        }
        _ => None,
    }
}

/// The constant that a movement of a constant is.
fn constant_of(graph: &Graph, node: &Node) -> Option<Better> {
    match &graph.node(node.inputs[0]).op {
        Op::Constant(op) => {
            Some(Better::Node(Op::Constant(Constant { fill: op.fill.clone(), ty: node.types[0].clone() }), vec![]))
        }
        _ => None,
    }
}

fn constant(value: f64, node: &Node) -> Option<Better> {
    let ty = node.types[0].clone();
    Some(Better::Node(Op::Constant(Constant { fill: Fill::Number(value), ty }), vec![]))
}

fn number(graph: &Graph, v: Value) -> Option<f64> {
    match &graph.node(v).op {
        Op::Constant(Constant { fill: Fill::Number(value), .. }) => Some(*value),
        _ => None,
    }
}

fn unary(kind: UnaryKind, x: f64) -> Option<f64> {
    Some(match kind {
        UnaryKind::Neg => -x,
        UnaryKind::Exp => x.exp(),
        UnaryKind::Log => x.ln(),
        UnaryKind::Sqrt => x.sqrt(),
        UnaryKind::Rsqrt => 1.0 / x.sqrt(),
        UnaryKind::Recip => 1.0 / x,
        UnaryKind::Abs => x.abs(),
        _ => return None,
    })
}

fn binary(kind: BinaryKind, a: f64, b: f64) -> Option<f64> {
    Some(match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::trace::Handle;
    use crate::graph::{Dim, Extent, TensorType};
    use crate::ops::{elementwise as ew, leaf, movement, reduce, slice};
    use crate::testing::{check, real, traced};
    use crate::transforms::prune::prune;

    /// The operations that are left of a function of a matrix, and that results are right.
    fn left(f: impl Fn(Handle) -> Handle) -> String {
        let given = [real(&[3, 4], 1)];
        let f = |x: &[Handle]| vec![f(x[0])];
        check(&given, f);
        let graph = prune(simplify(traced(&given, f)));
        let names = graph.nodes.iter().map(|n| n.op.rule().name()).filter(|n| *n != "input");
        names.collect::<Vec<_>>().join(" ")
    }

    fn fixed(sizes: &[u64]) -> Vec<Dim> {
        sizes.iter().map(|n| Dim::fixed(*n)).collect()
    }

    #[test]
    fn arithmetic_that_changes_nothing_goes() {
        let (zero, one) = (|| leaf::scalar(0.0), || leaf::scalar(1.0));
        assert_eq!(left(|x| ew::add(ew::sub(x, zero()), zero())), "");
        assert_eq!(left(|x| ew::mul(one(), ew::div(x, one()))), "");
        assert_eq!(left(|x| ew::neg(ew::neg(x))), "");
        assert_eq!(left(|x| ew::cast(x, DType::F32)), "");
        assert_eq!(left(|x| ew::mul(x, zero())), "constant mul");
        assert_eq!(left(|x| ew::sub(zero(), x)), "constant sub");
    }

    #[test]
    fn an_operand_that_is_broadcast_stays() {
        let ones = || leaf::fill(1.0, TensorType::new(fixed(&[2, 3, 4]), DType::F32));
        assert_eq!(left(|x| ew::mul(x, ones())), "constant mul");
    }

    #[test]
    fn constants_are_computed() {
        let two = || ew::add(leaf::scalar(1.0), leaf::scalar(1.0));
        assert_eq!(left(|x| ew::mul(x, ew::div(two(), ew::neg(leaf::scalar(4.0))))), "constant mul");
        let wide = || movement::broadcast(movement::reshape(leaf::scalar(3.0), fixed(&[1])), fixed(&[4, 1]));
        assert_eq!(left(|x| ew::mul(x, movement::reshape(wide(), fixed(&[4])))), "constant mul");
    }

    #[test]
    fn movement_is_joined() {
        assert_eq!(left(|x| movement::permute(movement::permute(x, &[1, 0]), &[1, 0])), "");
        assert_eq!(left(|x| movement::reshape(movement::reshape(x, fixed(&[12])), fixed(&[2, 6]))), "reshape");
        assert_eq!(left(|x| movement::reshape(movement::reshape(x, fixed(&[12])), fixed(&[3, 4]))), "");
        let broadcast = |x| movement::broadcast(movement::broadcast(x, fixed(&[2, 3, 4])), fixed(&[5, 2, 3, 4]));
        assert_eq!(left(broadcast), "broadcast");
        let row = |x| slice::slice(x, 0, Extent::constant(1), 1, Dim::fixed(1));
        assert_eq!(left(|x| reduce::reduce(row(x), reduce::Kind::Sum, &[0])), "slice sum");
    }

    #[test]
    fn results_keep_the_names_of_their_axes() {
        let named = Dim { axis: crate::graph::AxisTag { name: "Rows", path: "Rows" }, extent: Extent::constant(3) };
        let graph = traced(&[real(&[3], 1)], |x| vec![movement::relabel(x[0], vec![named.clone()])]);
        let simple = prune(simplify(graph));
        assert_eq!(simple.ty(simple.outputs[0]).dims, [named]);
    }
}
