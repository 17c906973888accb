//! The scan of a selective state space on GPUs.

use super::lower::{Lower, Lowering};
use mobilis_cuda::Ptr;
use mobilis_cuda::ssm::{self as kernel, Gradients, Input, Scan};

/// Sizes from those of the first inputs, lengths at input `lengths` where there are as many, and those inputs.
fn scan(cx: &mut Lower, lengths: usize) -> (Scan, Input) {
    let (x, b, scalar) = (cx.input_sizes(0).to_vec(), cx.input_sizes(3).to_vec(), cx.input_sizes(2).len() == 1);
    let lengths = if cx.inputs() > lengths { cx.input(lengths) } else { Ptr::NULL };
    let [batch, time, heads, channels] = [x[0], x[1], x[2], x[3]];
    let s = Scan { batch, time, heads, channels, groups: b[2], size: b[3], scalar, lengths };
    let [x, dt, a, b, c, state] = std::array::from_fn(|i| cx.input(i));
    (s, Input { x, dt, a, b, c, state })
}

pub fn ssm(cx: &mut Lower) -> Lowering {
    let (s, x) = scan(cx, 6);
    let (y, last) = (cx.output(0), cx.output(1));
    cx.launch(kernel::scan(&s, &x, y, last)?);
    Ok(())
}

pub fn grad(cx: &mut Lower) -> Lowering {
    let (s, input) = scan(cx, 8);
    let (dy, d_last) = (cx.input(6), cx.input(7));
    let [x, dt, a, b, c, state] = std::array::from_fn(|i| cx.output(i));
    let scratch = cx.scratch(s.grad_workspace());
    cx.launch(kernel::grad(&s, &input, (dy, d_last), &Gradients { x, dt, a, b, c, state }, scratch)?);
    Ok(())
}
