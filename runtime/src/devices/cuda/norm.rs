//! Norms on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::norm::{self, Kind, NormGrad};
use mobilis_cuda::Ptr;
use mobilis_cuda::norm::Norm;
use mobilis_cuda::rows::Number;

fn kernel(op: &norm::Norm, cx: &Lower) -> Result<Norm, String> {
    let groups = op.groups.as_ref().map(|g| cx.extent(g)).transpose()?;
    let sizes = cx.input_sizes(0);
    let n = op.row(sizes, groups)?;
    let rows = sizes.iter().product::<usize>().checked_div(n).unwrap_or(0);
    Ok(Norm { rows, n, eps: op.eps as f32, centred: op.kind == Kind::Layer, number: Number::F32 })
}

pub fn lower(op: &norm::Norm, cx: &mut Lower) -> Lowering {
    let kernel = kernel(op, cx)?;
    let x = cx.input(0);
    let weight = if op.weight { cx.input(1) } else { Ptr::NULL };
    let bias = if op.bias { cx.input(cx.inputs() - 1) } else { Ptr::NULL };
    let y = cx.output_rows(0);
    cx.launch(kernel.forward(x, None, weight, bias, y)?);
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
