//! Convolutions on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::conv::{Conv, ConvInputGrad, ConvWeightGrad, Geometry};
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

fn bias(cx: &mut Lower) -> Ptr {
    if cx.inputs() > 2 { cx.input(2) } else { Ptr::NULL }
}

pub fn conv(op: &Conv, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.input_sizes(0), cx.input_sizes(1), cx.output_sizes(0))?;
    let (x, w, b) = (cx.input(0), cx.input(1), bias(cx));
    let y = cx.output(0);
    cx.launch(kernel::forward(&s, x, w, b, y)?);
    Ok(())
}

pub fn conv_input_grad(op: &ConvInputGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.output_sizes(0), cx.input_sizes(1), cx.input_sizes(0))?;
    let (y, w, b) = (cx.input(0), cx.input(1), bias(cx));
    let x = cx.output(0);
    cx.launch(kernel::input_grad(&s, y, w, b, x)?);
    Ok(())
}

pub fn conv_weight_grad(op: &ConvWeightGrad, cx: &mut Lower) -> Lowering {
    let s = sizes(&op.geometry, cx, cx.input_sizes(0), cx.output_sizes(0), cx.input_sizes(1))?;
    let (x, y) = (cx.input(0), cx.input(1));
    let (w, scratch) = (cx.output(0), cx.scratch(kernel::weight_grad_workspace(&s)));
    cx.launch(kernel::weight_grad(&s, x, y, w, scratch)?);
    Ok(())
}
