//! Convolutions on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::Op;
use crate::ops::conv::{Conv, ConvInputGrad, ConvWeightGrad, Geometry};
use crate::ops::elementwise::UnaryKind;
use mobilis_cuda::Ptr;
use mobilis_cuda::conv as kernel;

/// The kernel's sizes; a single spatial dimension becomes the columns of a plane of one row.
fn sizes(geometry: &Geometry, cx: &Lower, x: &[usize], w: &[usize], y: &[usize]) -> Result<kernel::Conv, String> {
    let groups = cx.extent(&geometry.groups)?;
    let pair = |values: &dyn Fn(usize) -> usize, missing: usize| match geometry.spatial() {
        1 => [missing, values(0)],
        _ => [values(0), values(1)],
    };
    Ok(kernel::Conv {
        batch: x[0],
        groups,
        channels: w[1],
        filters: w[0].checked_div(groups).unwrap_or(0),
        input: pair(&|i| x[i + 2], 1),
        kernel: pair(&|i| w[i + 2], 1),
        output: pair(&|i| y[i + 2], 1),
        stride: pair(&|i| geometry.stride[i] as usize, 1),
        before: pair(&|i| geometry.padding[i][0] as usize, 0),
        dilation: pair(&|i| geometry.dilation[i] as usize, 1),
    })
}

/// Tensor cores where both factors were rounded to bf16: they lose nothing then.
fn factors(cx: &Lower) -> kernel::Factors {
    if rounded(cx, 0) && rounded(cx, 1) { kernel::Factors::Bf16 } else { kernel::Factors::F32 }
}

/// Whether the last thing that was done to an input's values is rounding to bf16.
fn rounded(cx: &Lower, i: usize) -> bool {
    let bf16 = |op: &Op| matches!(op, Op::Unary(op) if op.kind == UnaryKind::Bf16);
    let mut v = cx.value(i);
    loop {
        let node = &cx.graph.nodes[v.node as usize];
        match &node.op {
            Op::Chain(op) => return bf16(&op.steps[op.results[v.port as usize] as usize].op),
            op if op.rule().is_view() && !node.inputs.is_empty() => v = node.inputs[0],
            op => return bf16(op),
        }
    }
}

fn bias(cx: &mut Lower) -> Ptr {
    if cx.inputs() > 2 { cx.input(2) } else { Ptr::NULL }
}

pub fn conv(op: &Conv, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.input_sizes(0), cx.input_sizes(1), cx.output_sizes(0))?;
    let (x, w, b) = (cx.input(0), cx.input(1), bias(cx));
    let y = cx.output(0);
    let launches = kernel::forward(&s, factors(cx), x, w, b, y)?;
    cx.launch(launches);
    Ok(())
}

pub fn conv_input_grad(op: &ConvInputGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.output_sizes(0), cx.input_sizes(1), cx.input_sizes(0))?;
    let (y, w, b) = (cx.input(0), cx.input(1), bias(cx));
    let x = cx.output(0);
    let launches = kernel::input_grad(&s, factors(cx), y, w, b, x)?;
    cx.launch(launches);
    Ok(())
}

pub fn conv_weight_grad(op: &ConvWeightGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.input_sizes(0), cx.output_sizes(0), cx.input_sizes(1))?;
    let (x, y) = (cx.input(0), cx.input(1));
    let (w, scratch) = (cx.output(0), cx.scratch(kernel::weight_grad_workspace(&s)));
    let launches = kernel::weight_grad(&s, factors(cx), x, y, w, scratch)?;
    cx.launch(launches);
    Ok(())
}
