//! Draws of tokens on GPUs.

use super::lower::{Lower, Lowering};
use mobilis_cuda::sample as kernel;

pub fn sample(cx: &mut Lower) -> Lowering {
    let [rows, n] = [0, 1].map(|d| cx.input_sizes(0)[d]);
    let (logits, settings, numbers, to) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
    cx.launch(kernel::sample(logits, settings, numbers, to, [rows, n])?);
    Ok(())
}
