//! Norms on the reference device.

use super::{Eval, RefArray};
use crate::ops::norm::{Kind, Norm, NormGrad};

/// The normalised row and `1 / sqrt(var + eps)`.
fn normalized(op: &Norm, row: &[f64]) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let mean = if op.kind == Kind::Layer { row.iter().sum::<f64>() / n } else { 0.0 };
    let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let r = 1.0 / (var + op.eps).sqrt();
    (row.iter().map(|v| (v - mean) * r).collect(), r)
}

fn row(op: &Norm, cx: &Eval) -> Result<usize, String> {
    let groups = op.groups.as_ref().map(|g| g.eval(cx.sizes)).transpose().map_err(|e| e.to_string())?;
    op.row(&cx.inputs[0].sizes, groups)
}

pub fn norm(op: &Norm, cx: &Eval) -> Result<RefArray, String> {
    let x = cx.inputs[0];
    let n = row(op, cx)?;
    let weight = op.weight.then(|| cx.inputs[1]);
    let bias = op.bias.then(|| cx.inputs[cx.inputs.len() - 1]);
    let mut out = x.clone();
    for row in out.data.chunks_mut(n.max(1)) {
        let (xhat, _) = normalized(op, row);
        for i in 0..n {
            row[i] = xhat[i] * weight.map_or(1.0, |w| w.data[i]) + bias.map_or(0.0, |b| b.data[i]);
        }
    }
    Ok(out)
}

pub fn grad(op: &NormGrad, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (x, g) = (cx.inputs[0], cx.inputs[cx.inputs.len() - 1]);
    let n = row(&op.norm, cx)?;
    let weight = op.norm.weight.then(|| cx.inputs[1]);
    let mut gx = RefArray::filled(&x.sizes, 0.0);
    let (mut gw, mut gb) = (vec![0.0; n], vec![0.0; n]);
    for ((row, g), out) in x.data.chunks(n.max(1)).zip(g.data.chunks(n.max(1))).zip(gx.data.chunks_mut(n.max(1))) {
        let (xhat, r) = normalized(&op.norm, row);
        let d: Vec<f64> = (0..n).map(|i| g[i] * weight.map_or(1.0, |w| w.data[i])).collect();
        let mean_d = if op.norm.kind == Kind::Layer { d.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let mean_dx = d.iter().zip(&xhat).map(|(d, x)| d * x).sum::<f64>() / n as f64;
        for i in 0..n {
            out[i] = r * (d[i] - mean_d - xhat[i] * mean_dx);
            gw[i] += g[i] * xhat[i];
            gb[i] += g[i];
        }
    }
    let mut grads = vec![gx];
    grads.extend(op.norm.weight.then(|| RefArray::new(&[n], gw)));
    grads.extend(op.norm.bias.then(|| RefArray::new(&[n], gb)));
    Ok(grads)
}
