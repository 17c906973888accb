//! Convolutions on the CPU.

use super::lower::Lower;
use crate::ops::conv::{Conv, ConvInputGrad, ConvWeightGrad, Geometry};
use mobilis_kernels::cpu::conv as kernel;
use mobilis_kernels::memory::{Memory, Piece};
use mobilis_kernels::pool::Pool;

/// The kernel's sizes; a single spatial dimension becomes the columns of a plane of one row.
fn sizes(geometry: &Geometry, cx: &Lower, x: &[usize], w: &[usize], y: &[usize]) -> Result<kernel::Conv, String> {
    let groups = cx.extent(&geometry.groups)?;
    let pair = |values: &dyn Fn(usize) -> usize, missing: usize| match geometry.spatial() {
        1 => [missing, values(0)],
        _ => [values(0), values(1)],
    };
    Ok(kernel::Conv {
        batch: x[0],
        groups,
        channels: w[1],
        filters: w[0].checked_div(groups).unwrap_or(0),
        input: pair(&|i| x[i + 2], 1),
        kernel: pair(&|i| w[i + 2], 1),
        output: pair(&|i| y[i + 2], 1),
        stride: pair(&|i| geometry.stride[i] as usize, 1),
        before: pair(&|i| geometry.padding[i][0] as usize, 0),
        dilation: pair(&|i| geometry.dilation[i] as usize, 1),
        alike: cx.alike,
    })
}

/// The bias's values, where there is one.
fn bias<'m>(m: &'m Memory, piece: Option<Piece>) -> Option<mobilis_kernels::memory::Read<'m, f32>> {
    piece.map(|p| m.f32(p))
}

pub fn conv(op: &Conv, cx: &mut Lower) -> Result<(), String> {
    let plan = sizes(&op.geometry, cx, cx.input_sizes(0), cx.input_sizes(1), cx.output_sizes(0))?;
    let threads = Pool::global().threads();
    let (x, w) = (cx.input(0), cx.input(1));
    let b = (cx.inputs() > 2).then(|| cx.input(2));
    let (y, scratch) = (cx.output(0), cx.scratch(plan.scratch(threads)));
    cx.task(move |m| {
        let (b, mut y, mut scratch) = (bias(m, b), m.f32_mut(y), m.f32_mut(scratch));
        kernel::forward(m.pool(), &plan, &m.f32(x), &m.f32(w), b.as_deref(), &mut y, &mut scratch, threads);
    });
    Ok(())
}

pub fn conv_input_grad(op: &ConvInputGrad, cx: &mut Lower) -> Result<(), String> {
    let plan = sizes(&op.geometry, cx, cx.output_sizes(0), cx.input_sizes(1), cx.input_sizes(0))?;
    let threads = Pool::global().threads();
    let (y, w) = (cx.input(0), cx.input(1));
    let b = (cx.inputs() > 2).then(|| cx.input(2));
    let (x, scratch) = (cx.output(0), cx.scratch(plan.scratch(threads)));
    cx.task(move |m| {
        let (b, mut x, mut scratch) = (bias(m, b), m.f32_mut(x), m.f32_mut(scratch));
        kernel::input_grad(m.pool(), &plan, &m.f32(y), &m.f32(w), b.as_deref(), &mut x, &mut scratch, threads);
    });
    Ok(())
}

pub fn conv_weight_grad(op: &ConvWeightGrad, cx: &mut Lower) -> Result<(), String> {
    let plan = sizes(&op.geometry, cx, cx.input_sizes(0), cx.output_sizes(0), cx.input_sizes(1))?;
    let threads = Pool::global().threads();
    let (x, y) = (cx.input(0), cx.input(1));
    let (w, scratch) = (cx.output(0), cx.scratch(plan.weight_scratch(threads)));
    cx.task(move |m| {
        let (mut w, mut scratch) = (m.f32_mut(w), m.f32_mut(scratch));
        kernel::weight_grad(m.pool(), &plan, &m.f32(x), &m.f32(y), &mut w, &mut scratch, threads);
    });
    Ok(())
}
