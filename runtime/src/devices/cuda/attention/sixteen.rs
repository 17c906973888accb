//! Attention by tensor cores, where it loses nothing that the graph keeps: all operands lie on numbers of bf16 or f16 and
//! whoever reads a result rounds it to the same, which is what a policy of precision writes around attention.
//!
//! Operands are packed as 16 bits (exactly), results unpacked. Inside, kernels round weights to 16 bits too, as all
//! attention on tensor cores does; the CPU keeps those in `f32`. Masks, dropout, few queries and whatever else the kernels do
//! not take stay `f32`.

use super::super::lower::{Lower, Refused};
use super::super::narrow::{LEAST, sixteen};
use crate::graph::Value;
use crate::ops::Op;
use crate::ops::elementwise::UnaryKind;
use mobilis_cuda::attention::{self as kernel, Gradients, Kernels, Operand, Problem};
use mobilis_cuda::gemm::{Element, Matrix};
use mobilis_cuda::quantize::convert;
use mobilis_cuda::{Launch, Ptr};

/// Whether all that reads a value rounds it to `to`, or is the gradient that goes with it.
fn only_rounded(v: Value, to: UnaryKind, cx: &Lower) -> bool {
    let graph = cx.graph;
    let shown = graph.outputs.iter().chain(graph.taps.iter().map(|t| &t.1)).chain(graph.updates.iter().map(|u| &u.1));
    if shown.into_iter().any(|s| *s == v) {
        return false;
    }
    let rounds = |op: &Op| matches!(op, Op::Unary(op) if op.kind == to);
    (v.node as usize + 1..graph.nodes.len()).all(|id| {
        let node = &graph.nodes[id];
        if !node.inputs.contains(&v) {
            return true;
        }
        match &node.op {
            op if op.rule().is_view() => only_rounded(Value { node: id as u32, port: 0 }, to, cx),
            Op::Chain(chain) => chain.steps.iter().all(|step| {
                let reads = step.args.iter().any(|a| node.inputs.get(*a as usize) == Some(&v));
                !reads || rounds(&step.op)
            }),
            Op::AttentionGrad(grad) => node.inputs.iter().enumerate().all(|(i, x)| *x != v || i == grad.places().0),
            op => rounds(op),
        }
    })
}

/// The type in which tensor cores can take the problem.
fn element(p: &Problem, inputs: &[usize], ports: u16, cx: &mut Lower) -> Option<Element> {
    let n = p.sizes;
    if n.t.min(n.s).min(n.d).min(n.e) < LEAST || cx.info().capability < 80 {
        return None;
    }
    let element = sixteen(inputs[0], cx)?;
    if inputs[1..].iter().any(|i| sixteen(*i, cx) != Some(element)) {
        return None;
    }
    let to = if element == Element::Bf16 { UnaryKind::Bf16 } else { UnaryKind::F16 };
    let node = cx.node;
    (0..ports).all(|port| only_rounded(Value { node, port }, to, cx)).then_some(element)
}

fn of(element: Element) -> kernel::Element {
    if element == Element::Bf16 { kernel::Element::Bf16 } else { kernel::Element::F16 }
}

/// `[b positions heads features]` as 16 bits in scratch memory.
fn pack(
    x: &Operand,
    [b, t, h, d]: [usize; 4],
    element: Element,
    cx: &mut Lower,
    launches: &mut Vec<Launch>,
) -> Result<Operand, Refused> {
    let to = cx.scratch(b * t * h * d * element.bytes());
    let from = |row, inner| Matrix { at: x.at, row, col: 1, outer: x.b, inner, ..Matrix::default() };
    // Heads beside each other move together, others one by one.
    if h == 1 || x.h == d {
        launches.extend(convert(&from(x.t, 0), [b, 1], [t, h * d], Ptr::NULL, (to, element), h * d)?);
        return Ok(Operand::packed(to, t, h, d));
    }
    launches.extend(convert(&from(x.t, x.h), [b, h], [t, d], Ptr::NULL, (to, element), d)?);
    Ok(Operand { at: to, b: h * t * d, t: d, h: t * d })
}

/// Rows of 16 bits as `f32`.
fn unpack(from: Ptr, element: Element, [rows, width]: [usize; 2], to: Ptr) -> Result<Vec<Launch>, Refused> {
    let x = Matrix::rows(from, width).of(element);
    Ok(convert(&x, [1, 1], [rows, width], Ptr::NULL, (to, Element::F32), width)?)
}

/// Launches the forward pass on tensor cores, where they take it.
pub fn forward(p: &Problem, operands: [Operand; 3], out: Ptr, lse: Ptr, cx: &mut Lower) -> bool {
    let launches = element(p, &[0, 1, 2], 1, cx).and_then(|element| {
        let (n, mut launches) = (p.sizes, vec![]);
        let operands = places(p, operands, element, cx, &mut launches).ok()?;
        let (rows, width) = (n.b * n.t, n.g * n.r * n.e);
        let small = cx.scratch(rows * width * element.bytes());
        let info = cx.info();
        launches.extend(kernel::forward16(p, info, Kernels::of(info), of(element), operands, None, small, lse).ok()?);
        launches.extend(unpack(small, element, [rows, width], out).ok()?);
        Some(launches)
    });
    launches.map(|l| cx.launch(l)).is_some()
}

/// Queries, keys and values in 16 bits.
fn places(
    p: &Problem,
    [q, k, v]: [Operand; 3],
    element: Element,
    cx: &mut Lower,
    launches: &mut Vec<Launch>,
) -> Result<[Operand; 3], Refused> {
    let n = p.sizes;
    Ok([
        pack(&q, [n.b, n.t, n.g * n.r, n.d], element, cx, launches)?,
        pack(&k, [n.b, n.s, n.g, n.d], element, cx, launches)?,
        pack(&v, [n.b, n.s, n.g, n.e], element, cx, launches)?,
    ])
}

/// Launches the backward pass on tensor cores, where they take it; the gradient by the result is input `g`.
pub fn backward(p: &Problem, operands: [Operand; 3], g: usize, to: &Gradients, cx: &mut Lower) -> bool {
    if to.dmask != Ptr::NULL {
        return false;
    }
    let launches = element(p, &[0, 1, 2, g], 3, cx).and_then(|element| {
        let (n, mut launches) = (p.sizes, vec![]);
        let heads = n.g * n.r;
        let [q, k, v] = places(p, operands, element, cx, &mut launches).ok()?;
        let by_out = [n.b, n.t, heads, n.e];
        let g = pack(&to.g, by_out, element, cx, &mut launches).ok()?;
        let out = pack(&Operand::packed(to.out, n.t, heads, n.e), by_out, element, cx, &mut launches).ok()?;
        let wide = [[n.b * n.t, heads * n.d], [n.b * n.s, n.g * n.d], [n.b * n.s, n.g * n.e]];
        let [dq, dk, dv] = wide.map(|[rows, width]| cx.scratch(rows * width * element.bytes()));
        let work = cx.scratch(kernel::backward16_workspace(p, None).ok()?);
        let (info, small) = (cx.info(), Gradients { out: out.at, g, dq, dk, dv, ..*to });
        let kernels = Kernels::of(info);
        launches.extend(kernel::backward16(p, info, kernels, of(element), [q, k, v], None, &small, work).ok()?);
        for ((from, to), sizes) in [(dq, to.dq), (dk, to.dk), (dv, to.dv)].into_iter().zip(wide) {
            launches.extend(unpack(from, element, sizes, to).ok()?);
        }
        Some(launches)
    });
    launches.map(|l| cx.launch(l)).is_some()
}
