//! Convolutions on the reference device: one loop over all products of the trilinear form that
//! the three operations share (see `crate::ops::conv`).

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::conv::{Conv, ConvInputGrad, ConvWeightGrad, Geometry};

/// Calls `f` with the indices of `x`, `w` and `y` of every product in the sum.
fn products(
    geometry: &Geometry,
    cx: &Eval,
    (x, w, y): (&[usize], &[usize], &[usize]),
    mut f: impl FnMut(&[usize], &[usize], &[usize]),
) -> Result<(), String> {
    let groups = geometry.groups.eval(cx.sizes).map_err(|e| e.to_string())?;
    let filters = w[0].checked_div(groups).unwrap_or(0);
    let mut x_index = vec![0; x.len()];
    let mut w_index = vec![0; w.len()];
    for_each_index(y, |y_index| {
        for_each_index(&w[1..], |inner| {
            w_index[0] = y_index[1];
            w_index[1..].copy_from_slice(inner);
            x_index[0] = y_index[0];
            x_index[1] = y_index[1] / filters * w[1] + inner[0];
            for i in 0..geometry.spatial() {
                let at = y_index[i + 2] * geometry.stride[i] as usize + inner[i + 1] * geometry.dilation[i] as usize;
                let before = geometry.padding[i][0] as usize;
                if at < before || at - before >= x[i + 2] {
                    return;
                }
                x_index[i + 2] = at - before;
            }
            f(&x_index, &w_index, y_index);
        });
    });
    Ok(())
}

/// The result filled with its bias, or with 0.
fn start(cx: &Eval) -> RefArray {
    match cx.inputs.get(2) {
        Some(bias) => RefArray::from_fn(&cx.outputs[0], |index| bias.data[index[1]]),
        None => RefArray::filled(&cx.outputs[0], 0.0),
    }
}

pub fn conv(op: &Conv, cx: &Eval) -> Result<RefArray, String> {
    let (x, w, mut y) = (cx.inputs[0], cx.inputs[1], start(cx));
    products(&op.geometry, cx, (&x.sizes, &w.sizes, &cx.outputs[0]), |xi, wi, yi| {
        let position = y.offset(yi);
        y.data[position] += x.at(xi) * w.at(wi);
    })?;
    Ok(y)
}

pub fn conv_input_grad(op: &ConvInputGrad, cx: &Eval) -> Result<RefArray, String> {
    let (y, w, mut x) = (cx.inputs[0], cx.inputs[1], start(cx));
    products(&op.geometry, cx, (&cx.outputs[0], &w.sizes, &y.sizes), |xi, wi, yi| {
        let position = x.offset(xi);
        x.data[position] += y.at(yi) * w.at(wi);
    })?;
    Ok(x)
}

pub fn conv_weight_grad(op: &ConvWeightGrad, cx: &Eval) -> Result<RefArray, String> {
    let (x, y) = (cx.inputs[0], cx.inputs[1]);
    let mut w = RefArray::filled(&cx.outputs[0], 0.0);
    products(&op.geometry, cx, (&x.sizes, &cx.outputs[0], &y.sizes), |xi, wi, yi| {
        let position = w.offset(wi);
        w.data[position] += x.at(xi) * y.at(yi);
    })?;
    Ok(w)
}
