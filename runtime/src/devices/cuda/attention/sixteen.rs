//! Attention by tensor cores, where it loses nothing that the graph keeps: all operands lie on numbers of bf16 or f16 and
//! whoever reads a result rounds it to the same, which is what a policy of precision writes around attention.
//!
//! Operands that do not lie in 16 bits yet are packed (exactly), results that shall not stay so are unpacked. Inside, kernels round weights to 16 bits too, as all
//! attention on tensor cores does; the CPU keeps those in `f32`. Masks, dropout, few queries and whatever else the kernels do
//! not take stay `f32`.

use super::super::lower::{Lower, Refused};
use super::super::narrow::{LEAST, sixteen};
use super::{operand, regular};
use crate::graph::Value;
use crate::ops::Op;
use crate::ops::elementwise::UnaryKind;
use mobilis_cuda::Ptr;
use mobilis_cuda::attention::{self as kernel, Gradients, Kernels, Operand, Problem};
use mobilis_cuda::gemm::{Element, Matrix};
use mobilis_cuda::quantize::{convert, recast};

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
fn element(p: &Problem, inputs: &[usize], ports: u16, cx: &Lower) -> Option<Element> {
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

/// Whether kernels read an operand of 16 bits where it lies.
fn aligned(x: &Operand) -> bool {
    x.at.0.is_multiple_of(16) && [x.b, x.t, x.h].iter().all(|s| s.is_multiple_of(8))
}

/// Input `i`, `[b positions heads features]`, in 16 bits: as it lies, or in scratch memory.
fn pack(i: usize, [b, t, h, d]: [usize; 4], element: Element, cx: &mut Lower) -> Result<Operand, Refused> {
    let view = cx.as_stored(i);
    let stored = cx.element(&view);
    let small = regular(&view, cx).filter(|_| stored != Element::F32);
    if let Some(x) = small.filter(|x| stored == element && aligned(x)) {
        return Ok(x);
    }
    let (x, stored) = small.map_or_else(|| (operand(i, cx), Element::F32), |x| (x, stored));
    let to = cx.scratch(b * t * h * d * element.bytes());
    let from = |row, inner| Matrix { at: x.at, element: stored, row, col: 1, outer: x.b, inner };
    // Heads beside each other move together, others one by one.
    if h == 1 || x.h == d {
        cx.launch(convert(&from(x.t, 0), [b, 1], [t, h * d], Ptr::NULL, (to, element), h * d)?);
        return Ok(Operand::packed(to, t, h, d));
    }
    cx.launch(convert(&from(x.t, x.h), [b, h], [t, d], Ptr::NULL, (to, element), d)?);
    Ok(Operand { at: to, b: h * t * d, t: d, h: t * d })
}

/// Where a result of 16 bits goes: to its place, or to scratch memory, from which it becomes the output in `f32`.
fn result(port: usize, count: usize, element: Element, cx: &mut Lower) -> (Ptr, Option<Ptr>) {
    match cx.planned(port) {
        Some(planned) if planned == element => (cx.small(port, element), None),
        _ => (cx.scratch(count * element.bytes()), Some(cx.output(port))),
    }
}

/// Launches the forward pass on tensor cores, where they take it.
pub fn forward(p: &Problem, cx: &mut Lower) -> bool {
    element(p, &[0, 1, 2], 1, cx).is_some_and(|element| whole(cx, |cx| attend(p, element, cx)))
}

/// Runs all of it, or leaves nothing behind.
fn whole(cx: &mut Lower, run: impl FnOnce(&mut Lower) -> Result<(), Refused>) -> bool {
    let mark = cx.mark();
    let done = run(cx).is_ok();
    if !done {
        cx.take_back_to(mark);
    }
    done
}

fn attend(p: &Problem, element: Element, cx: &mut Lower) -> Result<(), Refused> {
    let n = p.sizes;
    let operands = places(p, element, cx)?;
    let count = n.b * n.t * n.g * n.r * n.e;
    let ((small, out), lse) = (result(0, count, element, cx), cx.output(1));
    let info = cx.info();
    let launches = kernel::forward16(p, info, Kernels::of(info), of(element), operands, None, small, lse)?;
    cx.launch(launches);
    if let Some(out) = out {
        cx.launch(recast((small, element), (out, Element::F32), count)?);
    }
    Ok(())
}

/// Queries, keys and values in 16 bits.
fn places(p: &Problem, element: Element, cx: &mut Lower) -> Result<[Operand; 3], Refused> {
    let n = p.sizes;
    Ok([
        pack(0, [n.b, n.t, n.g * n.r, n.d], element, cx)?,
        pack(1, [n.b, n.s, n.g, n.d], element, cx)?,
        pack(2, [n.b, n.s, n.g, n.e], element, cx)?,
    ])
}

/// Launches the backward pass on tensor cores, where they take it. `at` are the places of the result, its logarithms of sums,
/// and the gradients by both among the inputs.
pub fn backward(p: &Problem, at: (usize, usize, usize, Option<usize>), cx: &mut Lower) -> bool {
    element(p, &[0, 1, 2, at.2], 3, cx).is_some_and(|element| whole(cx, |cx| go_back(p, at, element, cx)))
}

fn go_back(
    p: &Problem,
    (out, lse, g, g_lse): (usize, usize, usize, Option<usize>),
    element: Element,
    cx: &mut Lower,
) -> Result<(), Refused> {
    let (n, heads) = (p.sizes, p.sizes.g * p.sizes.r);
    let [q, k, v] = places(p, element, cx)?;
    let by_out = [n.b, n.t, heads, n.e];
    let (g, out) = (pack(g, by_out, element, cx)?, pack(out, by_out, element, cx)?);
    // Results lie one after the other; a view of them may not.
    let packed = Operand::packed(out.at, n.t, heads, n.e);
    if out != packed {
        return Err("attends to a result that lies in parts".into());
    }
    let lse = cx.input(lse);
    let g_lse = g_lse.map_or(Ptr::NULL, |i| cx.input(i));
    let counts = [n.b * n.t * heads * n.d, n.b * n.s * n.g * n.d, n.b * n.s * n.g * n.e];
    let [dq, dk, dv] = [0, 1, 2].map(|port| result(port, counts[port], element, cx));
    let work = cx.scratch(kernel::backward16_workspace(p, None)?);
    let to = Gradients { out: out.at, lse, g, g_lse, dq: dq.0, dk: dk.0, dv: dv.0, dmask: Ptr::NULL };
    let info = cx.info();
    let launches = kernel::backward16(p, info, Kernels::of(info), of(element), [q, k, v], None, &to, work)?;
    cx.launch(launches);
    for ((from, to), count) in [dq, dk, dv].into_iter().zip(counts) {
        if let Some(to) = to {
            cx.launch(recast((from, element), (to, Element::F32), count)?);
        }
    }
    Ok(())
}
