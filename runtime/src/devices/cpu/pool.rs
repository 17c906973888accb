//! Pooling on the CPU.

use super::lower::Lower;
use crate::ops::pool::{AveragePool, AveragePoolGrad, MaxPool, MaxPoolGrad, Window, Windows};
use mobilis_kernels::cpu::pool as kernel;

/// The last `spatial` sizes as a plane.
fn plane(sizes: &[usize], spatial: usize) -> [usize; 2] {
    let tail = &sizes[sizes.len() - spatial..];
    if spatial == 1 { [1, tail[0]] } else { [tail[0], tail[1]] }
}

pub fn max_pool(op: &MaxPool, cx: &mut Lower) {
    let n = op.windows.len();
    let pair = |f: fn(&Window) -> u64, missing: usize| match op.windows.as_slice() {
        [rows, columns] => [f(rows) as usize, f(columns) as usize],
        windows => [missing, f(&windows[0]) as usize],
    };
    let windows = kernel::Windows {
        input: plane(cx.input_sizes(0), n),
        output: plane(cx.output_sizes(0), n),
        kernel: pair(|w| w.kernel, 1),
        stride: pair(|w| w.stride, 1),
        before: pair(|w| w.padding, 0),
        dilation: pair(|w| w.dilation, 1),
    };
    let (x, y, positions) = (cx.input(0), cx.output(0), cx.output(1));
    cx.task(move |m| {
        kernel::max_pool(m.pool(), &windows, &m.f32(x), &mut m.f32_mut(y), &mut m.i32_mut(positions));
    });
}

pub fn max_pool_grad(op: &MaxPoolGrad, cx: &mut Lower) {
    let size = |sizes: &[usize]| plane(sizes, op.spatial).iter().product();
    let planes = (size(cx.output_sizes(0)), size(cx.input_sizes(0)));
    let (g, positions, x) = (cx.input(0), cx.input(1), cx.output(0));
    cx.task(move |m| {
        kernel::max_pool_grad(m.pool(), planes, &m.f32(g), &m.i32(positions), &mut m.f32_mut(x));
    });
}

/// The spans of rows and columns, for planes of the given sizes.
fn spans(windows: &Windows, input: [usize; 2], output: [usize; 2]) -> [Vec<kernel::Span>; 2] {
    let along = |axis: usize, i: usize| (0..output[i]).map(|q| windows.span(axis, q, input[i], output[i])).collect();
    if windows.spatial() == 1 { [vec![(0, 1, 1)], along(0, 1)] } else { [along(0, 0), along(1, 1)] }
}

pub fn average_pool(op: &AveragePool, cx: &mut Lower) {
    let n = op.windows.spatial();
    let input = plane(cx.input_sizes(0), n);
    let [rows, columns] = spans(&op.windows, input, plane(cx.output_sizes(0), n));
    let (x, y) = (cx.input(0), cx.output(0));
    cx.task(move |m| kernel::average_pool(m.pool(), &rows, &columns, input, &m.f32(x), &mut m.f32_mut(y)));
}

pub fn average_pool_grad(op: &AveragePoolGrad, cx: &mut Lower) {
    let n = op.windows.spatial();
    let input = plane(cx.output_sizes(0), n);
    let [rows, columns] = spans(&op.windows, input, plane(cx.input_sizes(0), n));
    let (g, x) = (cx.input(0), cx.output(0));
    cx.task(move |m| kernel::average_pool_grad(m.pool(), &rows, &columns, input, &m.f32(g), &mut m.f32_mut(x)));
}
