//! LSTM and GRU on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::recurrent::{Direction, Gru, GruGrad, Lstm, LstmGrad};
use mobilis_cuda::Ptr;
use mobilis_cuda::recurrent as kernel;

/// Sizes from those of a value `[batch, time, ..]`, the recurrent weight, and lengths at input `lengths`, where
/// there are as many inputs.
fn steps(cx: &mut Lower, values: usize, weight: usize, lengths: usize, direction: Direction) -> kernel::Steps {
    let (sizes, hidden) = (cx.input_sizes(values), cx.input_sizes(weight)[1]);
    let (batch, time) = (sizes[0], sizes[1]);
    let lengths = if cx.inputs() > lengths { cx.input(lengths) } else { Ptr::NULL };
    kernel::Steps { batch, time, hidden, backward: direction == Direction::Backward, lengths }
}

fn inputs<const N: usize>(cx: &mut Lower) -> [Ptr; N] {
    std::array::from_fn(|i| cx.input(i))
}

fn outputs<const N: usize>(cx: &mut Lower) -> [Ptr; N] {
    std::array::from_fn(|i| cx.output(i))
}

pub fn lstm(op: &Lstm, cx: &mut Lower) -> Lowering {
    let s = steps(cx, 0, 1, 4, op.direction);
    let [gates, weight, h, c] = inputs(cx);
    let x = kernel::LstmInput { gates, weight, h, c };
    let [y, h, c, gates, cells] = outputs(cx);
    cx.launch(kernel::lstm(&s, &x, &kernel::LstmOutput { y, h, c, gates, cells })?);
    Ok(())
}

pub fn lstm_grad(op: &LstmGrad, cx: &mut Lower) -> Lowering {
    let s = steps(cx, 3, 0, 9, op.direction);
    let [weight, h, c, y, gates, cells, dy, dh, dc] = inputs(cx);
    let x = kernel::LstmGradInput { weight, h, c, y, gates, cells, dy, dh, dc };
    let [gates, weight, h, c] = outputs(cx);
    let scratch = cx.scratch(s.grad_workspace(4));
    cx.launch(kernel::lstm_grad(&s, &x, &kernel::LstmGradOutput { gates, weight, h, c }, scratch)?);
    Ok(())
}

pub fn gru(op: &Gru, cx: &mut Lower) -> Lowering {
    let s = steps(cx, 0, 1, 4, op.direction);
    let [gates, weight, bias, h] = inputs(cx);
    let x = kernel::GruInput { gates, weight, bias, h };
    let [y, h, saved] = outputs(cx);
    cx.launch(kernel::gru(&s, &x, &kernel::GruOutput { y, h, saved })?);
    Ok(())
}

pub fn gru_grad(op: &GruGrad, cx: &mut Lower) -> Lowering {
    let s = steps(cx, 2, 0, 6, op.direction);
    let [weight, h, y, saved, dy, dh] = inputs(cx);
    let x = kernel::GruGradInput { weight, h, y, saved, dy, dh };
    let [gates, weight, bias, h] = outputs(cx);
    let scratch = cx.scratch(s.grad_workspace(3));
    cx.launch(kernel::gru_grad(&s, &x, &kernel::GruGradOutput { gates, weight, bias, h }, scratch)?);
    Ok(())
}
