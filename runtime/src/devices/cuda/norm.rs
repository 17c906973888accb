//! Norms on GPUs. A sum of two values that nothing reads before its norm does is added in the norm's kernel, which writes it
//! too ([`Sum`]): products add residuals themselves (`epilogue.rs`), what is left are sums with other results, and of
//! embeddings.

use super::lower::{Lower, Lowering};
use crate::devices::view::View;
use crate::graph::{DType, Value};
use crate::ops::Op;
use crate::ops::norm::{self, Kind, NormGrad};
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::Element;
use mobilis_cuda::norm::Norm;
use mobilis_cuda::rows::Number;

fn kernel(op: &norm::Norm, cx: &Lower) -> Result<Norm, String> {
    let groups = op.groups.as_ref().map(|g| cx.extent(g)).transpose()?;
    let sizes = cx.input_sizes(0);
    let n = op.row(sizes, groups)?;
    let rows = sizes.iter().product::<usize>().checked_div(n).unwrap_or(0);
    Ok(Norm { rows, n, eps: op.eps as f32, centred: op.kind == Kind::Layer, number: Number::F32 })
}

/// A sum that waits for its norm.
pub struct Sum {
    terms: [View; 2],
}

/// Whether the sum at hand, of these values, is left to the norm that reads it: the output is placed then.
pub fn leave(views: &[View], cx: &mut Lower) -> bool {
    let (v, sizes) = (Value { node: cx.node, port: 0 }, cx.output_sizes(0).to_vec());
    let lies = |x: &View| {
        let whole = cx.element(x) == Element::F32 && x.dtype == DType::F32 && x.sizes == sizes && x.is_contiguous();
        whole && !cx.is_updated(x.slot)
    };
    let [a, b] = views else { return false };
    if !lies(a) || !lies(b) || cx.home(0).is_some() || cx.planned(0).is_some() || a.count() >= 1 << 31 {
        return false;
    }
    let graph = cx.graph;
    let reader = graph.nodes[cx.node as usize + 1..].iter().find(|n| n.inputs.contains(&v));
    let Some(Op::Norm(norm)) = reader.map(|n| &n.op) else { return false };
    let first = reader.is_some_and(|n| n.inputs[0] == v && n.inputs[1..].iter().all(|x| *x != v));
    if !first || norm.groups.is_some() || norm.row(&sizes, None).is_err() {
        return false;
    }
    cx.output(0);
    cx.sums.insert(v, Sum { terms: [a.clone(), b.clone()] });
    true
}

pub fn lower(op: &norm::Norm, cx: &mut Lower) -> Lowering {
    let kernel = kernel(op, cx)?;
    let v = cx.value(0);
    let sum = cx.sums.remove(&v);
    let (x, residual) = match &sum {
        Some(Sum { terms: [a, b] }) => {
            [a, b].into_iter().for_each(|x| cx.touch(x.slot));
            let to = cx.input(0);
            (cx.address(a), Some((cx.address(b), to)))
        }
        None => (cx.input(0), None),
    };
    let weight = if op.weight { cx.input(1) } else { Ptr::NULL };
    let bias = if op.bias { cx.input(cx.inputs() - 1) } else { Ptr::NULL };
    let y = cx.output_rows(0);
    cx.launch(kernel.forward(x, residual, weight, bias, y)?);
    Ok(())
}

pub fn grad(op: &NormGrad, cx: &mut Lower) -> Lowering {
    let kernel = kernel(&op.norm, cx)?;
    let (x, g) = (cx.input(0), cx.input(cx.inputs() - 1));
    let weight = if op.norm.weight { cx.input(1) } else { Ptr::NULL };
    let gx = cx.output(0);
    let gw = if op.norm.weight { cx.output(1) } else { Ptr::NULL };
    let gb = if op.norm.bias { cx.output(1 + op.norm.weight as usize) } else { Ptr::NULL };
    let multiprocessors = cx.info().multiprocessors;
    let workspace =
        if gw == Ptr::NULL && gb == Ptr::NULL { Ptr::NULL } else { cx.scratch(kernel.workspace(multiprocessors)) };
    cx.launch(kernel.backward((x, weight, g), (gx, gw, gb), workspace, multiprocessors)?);
    Ok(())
}
