//! Pooling on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::pool::{AveragePool, AveragePoolGrad, MaxPool, MaxPoolGrad, Windows};

pub fn max_pool(op: &MaxPool, cx: &Eval) -> Vec<RefArray> {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let lead = sizes.len() - op.windows.len();
    let kernel: Vec<usize> = op.windows.iter().map(|w| w.kernel as usize).collect();
    let (mut values, mut positions) = (vec![], vec![]);
    for_each_index(sizes, |index| {
        let (mut best, mut position) = (f64::NEG_INFINITY, -1.0);
        for_each_index(&kernel, |k| {
            let mut source = index.to_vec();
            let mut flat = 0;
            for (i, w) in op.windows.iter().enumerate() {
                let at = index[lead + i] * w.stride as usize + k[i] * w.dilation as usize;
                let Some(at) = at.checked_sub(w.padding as usize).filter(|at| *at < x.sizes[lead + i]) else { return };
                source[lead + i] = at;
                flat = flat * x.sizes[lead + i] + at;
            }
            let v = x.at(&source);
            // The first value counts even if it is minus infinity, and NaN beats everything.
            if position < 0.0 || v > best || (v.is_nan() && !best.is_nan()) {
                (best, position) = (v, flat as f64);
            }
        });
        values.push(best);
        positions.push(position);
    });
    vec![RefArray::new(sizes, values), RefArray::new(sizes, positions)]
}

pub fn max_pool_grad(op: &MaxPoolGrad, cx: &Eval) -> RefArray {
    let (g, positions) = (cx.inputs[0], cx.inputs[1]);
    let lead = g.sizes.len() - op.spatial;
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let plane: usize = out.sizes[lead..].iter().product();
    let window_plane: usize = g.sizes[lead..].iter().product();
    for (i, (g, position)) in g.data.iter().zip(&positions.data).enumerate() {
        if *position >= 0.0 {
            out.data[i / window_plane * plane + *position as usize] += g;
        }
    }
    out
}

/// Calls `f` with the index of `x`, the index of `y` and the weight of every pair of an input
/// and a window that it is in.
fn shares(windows: &Windows, x: &[usize], y: &[usize], mut f: impl FnMut(&[usize], &[usize], f64)) {
    let n = windows.spatial();
    let lead = y.len() - n;
    for_each_index(y, |index| {
        let spans: Vec<(usize, usize, usize)> =
            (0..n).map(|i| windows.span(i, index[lead + i], x[lead + i], y[lead + i])).collect();
        let count: usize = spans.iter().map(|s| s.2).product();
        let widths: Vec<usize> = spans.iter().map(|s| s.1 - s.0).collect();
        let mut source = index.to_vec();
        for_each_index(&widths, |k| {
            for i in 0..n {
                source[lead + i] = spans[i].0 + k[i];
            }
            f(&source, index, 1.0 / count as f64);
        });
    });
}

pub fn average_pool(op: &AveragePool, cx: &Eval) -> RefArray {
    let (x, mut y) = (cx.inputs[0], RefArray::filled(&cx.outputs[0], 0.0));
    shares(&op.windows, &x.sizes, &cx.outputs[0], |xi, yi, weight| {
        let position = y.offset(yi);
        y.data[position] += weight * x.at(xi);
    });
    y
}

pub fn average_pool_grad(op: &AveragePoolGrad, cx: &Eval) -> RefArray {
    let (g, mut out) = (cx.inputs[0], RefArray::filled(&cx.outputs[0], 0.0));
    shares(&op.windows, &cx.outputs[0], &g.sizes, |xi, yi, weight| {
        let position = out.offset(xi);
        out.data[position] += weight * g.at(yi);
    });
    out
}
