//! Softmax on GPUs.

use super::along;
use super::lower::{Lower, Lowering};
use mobilis_cuda::rows::Number;
use mobilis_cuda::softmax::{softmax, softmax_back};

pub fn lower(axis: usize, log: bool, cx: &mut Lower) -> Lowering {
    let along = along(cx.input_sizes(0), axis);
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(softmax(x, y, along, log, Number::F32)?);
    Ok(())
}

pub fn grad(axis: usize, log: bool, cx: &mut Lower) -> Lowering {
    let along = along(cx.input_sizes(0), axis);
    let (y, g, gx) = (cx.input(0), cx.input(1), cx.output(0));
    cx.launch(softmax_back(y, g, gx, along, log, Number::F32)?);
    Ok(())
}
