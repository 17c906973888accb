//! Numbers of eight bits on the reference device. Formats and scales are defined on `f32`: that is
//! what this computes with.

use super::{Eval, RefArray};
use crate::ops::quantize::{FormatScale, Group, Quantize, ScaleBy};
use mobilis_kernels::cpu::quant::half::{from_bf16, to_bf16};
use mobilis_kernels::fp8;

fn greatest<'v>(values: impl Iterator<Item = &'v f64>) -> f32 {
    // `f32::max` passes over NaN.
    values.fold(0.0, |m, x| m.max(x.abs() as f32))
}

pub fn amax(cx: &Eval) -> RefArray {
    RefArray::filled(&[], greatest(cx.inputs[0].data.iter()) as f64)
}

pub fn scale(op: &FormatScale, cx: &Eval) -> RefArray {
    let given = |i: usize| cx.inputs[i].data[0] as f32;
    let scale = match op.by {
        ScaleBy::Current(by) => by.of(op.format, given(0)),
        ScaleBy::Delayed { margin } => fp8::delayed_scale(op.format, margin, given(0), given(1)),
    };
    RefArray::filled(&[], scale as f64)
}

pub fn quantize(op: &Quantize, cx: &Eval) -> Result<RefArray, String> {
    let x = cx.inputs[0];
    if !op.applies(|e| e.eval(cx.sizes).map_err(|e| e.to_string()))? {
        return Ok(RefArray::new(&x.sizes, x.data.iter().map(|v| from_bf16(to_bf16(*v as f32)) as f64).collect()));
    }
    let through = |v: f64, scale: f32| (op.format.round(v as f32 * scale) * (1.0 / scale)) as f64;
    let (inner, rows, along, scale) = match &op.group {
        Group::All => {
            let scale = cx.inputs[1].data[0] as f32;
            return Ok(RefArray::new(&x.sizes, x.data.iter().map(|v| through(*v, scale)).collect()));
        }
        Group::Tile { inner, rows, along, scale } => (inner, *rows, *along, *scale),
    };
    // The tile of a place: which summands, and which rows; a tile lies within what precedes `inner`
    // where something follows it.
    let last = inner[inner.len() - 1] + 1;
    let tile = |i: usize| {
        let (mut rest, mut before, mut depth, mut after) = (i, 0, 0, 0);
        let strides = x.strides();
        for (d, (size, stride)) in x.sizes.iter().zip(&strides).enumerate() {
            let index = rest / stride;
            rest %= stride;
            let place = if inner.contains(&d) {
                &mut depth
            } else if d < last {
                &mut before
            } else {
                &mut after
            };
            *place = *place * size + index;
        }
        match last == x.sizes.len() {
            true => (0, before / rows, depth / along),
            false => (before, after / rows, depth / along),
        }
    };
    let mut amax = std::collections::HashMap::new();
    for (i, v) in x.data.iter().enumerate() {
        let most = amax.entry(tile(i)).or_insert(0f32);
        *most = most.max(v.abs() as f32);
    }
    let data = x.data.iter().enumerate().map(|(i, v)| through(*v, scale.of(op.format, amax[&tile(i)])));
    Ok(RefArray::new(&x.sizes, data.collect()))
}
