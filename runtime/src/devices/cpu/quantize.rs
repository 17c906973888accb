//! Numbers of eight bits on the CPU.

use super::lower::Lower;
use crate::ops::quantize::{FormatScale, Group, Quantize, ScaleBy};
use mobilis_kernels::cpu::quantize::{self as kernel, Tiles};
use mobilis_kernels::fp8;

pub fn amax(cx: &mut Lower) {
    let (x, y) = (cx.input(0), cx.output(0));
    cx.task(move |m| m.f32_mut(y)[0] = kernel::amax(m.pool(), &m.f32(x)));
}

pub fn scale(op: &FormatScale, cx: &mut Lower) {
    let format = op.format;
    match op.by {
        ScaleBy::Current(by) => {
            let (amax, y) = (cx.input(0), cx.output(0));
            cx.task(move |m| m.f32_mut(y)[0] = by.of(format, m.f32(amax)[0]));
        }
        ScaleBy::Delayed { margin } => {
            let (amax, old, y) = (cx.input(0), cx.input(1), cx.output(0));
            cx.task(move |m| m.f32_mut(y)[0] = fp8::delayed_scale(format, margin, m.f32(amax)[0], m.f32(old)[0]));
        }
    }
}

/// `[outer, rows, columns]` and its tiles, for dimensions `inner` that are summed over.
pub fn tiles(sizes: &[usize], inner: &[usize], (rows, along): (usize, usize)) -> Tiles {
    let product = |part: &[usize]| part.iter().product::<usize>();
    let (first, last) = (inner[0], inner[inner.len() - 1]);
    let (before, depth, after) = (product(&sizes[..first]), product(&sizes[first..=last]), product(&sizes[last + 1..]));
    match last + 1 == sizes.len() {
        true => Tiles { outer: 1, size: (before, depth), tile: (rows, along) },
        false => Tiles { outer: before, size: (depth, after), tile: (along, rows) },
    }
}

pub fn quantize(op: &Quantize, cx: &mut Lower) -> Result<(), String> {
    let applies = op.applies(|e| cx.extent(e))?;
    let (x, y) = (cx.input(0), cx.output(0));
    let format = op.format;
    if !applies {
        cx.task(move |m| kernel::bf16(m.pool(), &m.f32(x), &mut m.f32_mut(y)));
        return Ok(());
    }
    match &op.group {
        Group::All => {
            let scale = cx.input(1);
            cx.task(move |m| kernel::scaled(m.pool(), format, &m.f32(x), m.f32(scale)[0], &mut m.f32_mut(y)));
        }
        Group::Tile { inner, rows, along, scale } => {
            let at = tiles(cx.input_sizes(0), inner, (*rows, *along));
            let scale = *scale;
            cx.task(move |m| kernel::tiles(m.pool(), format, scale, at, &m.f32(x), &mut m.f32_mut(y)));
        }
    }
    Ok(())
}
