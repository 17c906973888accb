//! The scan of a selective state space on the CPU.

use super::lower::Lower;
use crate::ops::ssm::check_groups;
use mobilis_kernels::cpu::ssm::{self as kernel, Gradients, Input, Scan};
use mobilis_kernels::memory::Piece;
use mobilis_kernels::pool::Pool;

/// Sizes from those of the first inputs.
fn scan(cx: &Lower) -> Result<Scan, String> {
    let (x, b) = (cx.input_sizes(0), cx.input_sizes(3));
    check_groups(x[2], b[2])?;
    let scalar = cx.input_sizes(2).len() == 1;
    Ok(Scan { batch: x[0], time: x[1], heads: x[2], channels: x[3], groups: b[2], size: b[3], scalar })
}

pub fn ssm(cx: &mut Lower) -> Result<(), String> {
    let s = scan(cx)?;
    let given: [Piece; 6] = std::array::from_fn(|i| cx.input(i));
    let lengths = (cx.inputs() > 6).then(|| cx.input(6));
    let (y, last) = (cx.output(0), cx.output(1));
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [x, dt, a, b, c, state] = &given.map(|p| m.f32(p));
        let x = Input { x, dt, a, b, c, state, lengths: lengths.as_deref() };
        kernel::ssm(m.pool(), &s, &x, &mut m.f32_mut(y), &mut m.f32_mut(last));
    });
    Ok(())
}

pub fn grad(cx: &mut Lower) -> Result<(), String> {
    let s = scan(cx)?;
    let given: [Piece; 8] = std::array::from_fn(|i| cx.input(i));
    let lengths = (cx.inputs() > 8).then(|| cx.input(8));
    let out: [Piece; 6] = std::array::from_fn(|i| cx.output(i));
    let scratch = cx.scratch(s.grad_scratch(Pool::global().threads()));
    cx.task(move |m| {
        let lengths = lengths.map(|l| m.i32(l));
        let [x, dt, a, b, c, state, dy, d_state] = &given.map(|p| m.f32(p));
        let x = Input { x, dt, a, b, c, state, lengths: lengths.as_deref() };
        let [mut dx, mut d_dt, mut da, mut db, mut dc, mut ds] = out.map(|p| m.f32_mut(p));
        let out = Gradients { x: &mut dx, dt: &mut d_dt, a: &mut da, b: &mut db, c: &mut dc, state: &mut ds };
        kernel::ssm_grad(m.pool(), &s, &x, (dy, d_state), out, &mut m.f32_mut(scratch));
    });
    Ok(())
}
