//! Sliding windows and their sums on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::window::{Fold, Unfold, check_sizes};
use mobilis_cuda::window::{self as kernel, Windows};

fn windows(whole: &[usize], cut: &[usize], axis: usize, stride: u64, dilation: u64) -> Result<Windows, String> {
    let (stride, dilation) = (stride as usize, dilation as usize);
    check_sizes(whole[axis], cut[axis], cut[axis + 1], stride, dilation)?;
    Ok(Windows {
        outer: whole[..axis].iter().product(),
        length: whole[axis],
        inner: whole[axis + 1..].iter().product(),
        windows: cut[axis],
        kernel: cut[axis + 1],
        stride,
        dilation,
    })
}

pub fn unfold(op: &Unfold, cx: &mut Lower) -> Lowering {
    let w = windows(cx.input_sizes(0), cx.output_sizes(0), op.axis, op.stride, op.dilation)?;
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(kernel::unfold(&w, cx.output_dtype(0).bytes(), x, y)?);
    Ok(())
}

pub fn fold(op: &Fold, cx: &mut Lower) -> Lowering {
    let w = windows(cx.output_sizes(0), cx.input_sizes(0), op.axis, op.stride, op.dilation)?;
    let (y, x) = (cx.input(0), cx.output(0));
    cx.launch(kernel::fold(&w, y, x)?);
    Ok(())
}
