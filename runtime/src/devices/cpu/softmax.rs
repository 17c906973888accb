//! Softmax on the CPU.

use super::lower::Lower;
use mobilis_kernels::cpu::softmax::{softmax, softmax_grad};

/// `n` and `inner` of dimension `axis`.
fn split(sizes: &[usize], axis: usize) -> (usize, usize) {
    (sizes[axis], sizes[axis + 1..].iter().product())
}

pub fn lower(axis: usize, log: bool, cx: &mut Lower) {
    let size = split(cx.input_sizes(0), axis);
    let (x, y) = (cx.input(0), cx.output(0));
    cx.task(move |m| softmax(m.pool(), log, size, &m.f32(x), &mut m.f32_mut(y)));
}

pub fn grad(axis: usize, log: bool, cx: &mut Lower) {
    let size = split(cx.input_sizes(0), axis);
    let (y, g, gx) = (cx.input(0), cx.input(1), cx.output(0));
    cx.task(move |m| softmax_grad(m.pool(), log, size, &m.f32(y), &m.f32(g), &mut m.f32_mut(gx)));
}
