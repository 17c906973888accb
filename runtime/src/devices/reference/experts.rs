//! Products with the matrices of chosen experts on the reference device.

use super::{Eval, RefArray};
use crate::ops::experts::{Experts, ExpertsGrad};

/// The expert of each choice.
fn named(chosen: &RefArray, experts: usize) -> Result<Vec<usize>, String> {
    let one = |e: &f64| match *e >= 0.0 && *e < experts as f64 {
        true => Ok(*e as usize),
        false => Err(format!("expert {e} is chosen, there are {experts} (0 to {})", experts as i64 - 1)),
    };
    chosen.data.iter().map(one).collect()
}

/// The values of `x` that belong to choice `c`.
fn row<'a>(x: &'a RefArray, chosen: &RefArray, c: usize) -> &'a [f64] {
    let width = x.sizes[x.sizes.len() - 1];
    let choices = if x.sizes.len() == chosen.sizes.len() { chosen.sizes[chosen.sizes.len() - 1] } else { 1 };
    &x.data[c / choices * width..][..width]
}

pub fn experts(op: &Experts, cx: &Eval) -> Result<RefArray, String> {
    let (x, chosen, matrices) = (cx.inputs[0], cx.inputs[1], &cx.inputs[2..]);
    let mut data = vec![];
    for (c, e) in named(chosen, matrices.len())?.into_iter().enumerate() {
        let (w, x) = (matrices[e], row(x, chosen, c));
        let (rows, columns) = (w.sizes[0], w.sizes[1]);
        match op.transposed {
            false => data.extend((0..rows).map(|o| (0..columns).map(|i| w.at(&[o, i]) * x[i]).sum::<f64>())),
            true => data.extend((0..columns).map(|i| (0..rows).map(|o| w.at(&[o, i]) * x[o]).sum::<f64>())),
        }
    }
    Ok(RefArray::new(&cx.outputs[0], data))
}

pub fn grad(op: &ExpertsGrad, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (chosen, a, b) = (cx.inputs[0], cx.inputs[1], cx.inputs[2]);
    let mut out: Vec<RefArray> = cx.outputs.iter().map(|sizes| RefArray::filled(sizes, 0.0)).collect();
    for (c, e) in named(chosen, op.experts)?.into_iter().enumerate() {
        let (a, b) = (row(a, chosen, c), row(b, chosen, c));
        for (o, a) in a.iter().enumerate() {
            for (i, v) in b.iter().enumerate() {
                out[e].data[o * b.len() + i] += a * v;
            }
        }
    }
    Ok(out)
}
