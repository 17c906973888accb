//! Softmax on the reference device.

use super::{Eval, RefArray};
use crate::ops::softmax::{Softmax, SoftmaxGrad};

/// Replaces every line of `x` along dimension `axis`.
fn along(x: &RefArray, axis: usize, mut f: impl FnMut(&[usize], Vec<f64>) -> Vec<f64>) -> RefArray {
    let mut out = x.clone();
    let (n, step) = (x.sizes[axis], x.strides()[axis]);
    for start in 0..x.data.len() {
        if (start / step) % n != 0 {
            continue;
        }
        let places: Vec<usize> = (0..n).map(|i| start + i * step).collect();
        let line = f(&places, places.iter().map(|p| x.data[*p]).collect());
        places.iter().zip(line).for_each(|(p, v)| out.data[*p] = v);
    }
    out
}

pub fn softmax(op: &Softmax, cx: &Eval) -> RefArray {
    along(cx.inputs[0], op.axis, |_, line| {
        let max = line.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        if line.iter().all(|v| *v == f64::NEG_INFINITY) {
            return vec![if op.log { f64::NEG_INFINITY } else { 0.0 }; line.len()];
        }
        let sum: f64 = line.iter().map(|v| (v - max).exp()).sum();
        line.iter().map(|v| if op.log { v - max - sum.ln() } else { (v - max).exp() / sum }).collect()
    })
}

pub fn grad(op: &SoftmaxGrad, cx: &Eval) -> RefArray {
    let g = cx.inputs[1];
    along(cx.inputs[0], op.axis, |places, y| {
        let g: Vec<f64> = places.iter().map(|p| g.data[*p]).collect();
        if op.log {
            let sum: f64 = g.iter().sum();
            return y.iter().zip(&g).map(|(y, g)| g - y.exp() * sum).collect();
        }
        let dot: f64 = y.iter().zip(&g).map(|(y, g)| y * g).sum();
        y.iter().zip(&g).map(|(y, g)| y * (g - dot)).collect()
    })
}
