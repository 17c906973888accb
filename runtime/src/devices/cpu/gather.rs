//! Picking and adding by indices on the CPU.

use super::lower::Lower;
use super::slice::{begin, in_place};
use super::{plain, split_at};
use crate::graph::DType;
use crate::ops::gather::{Gather, ScatterAdd, Take, TakeAdd};
use mobilis_kernels::cpu::gather as kernel;

pub fn take(op: &Take, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (x, ids, y) = (cx.input(0), cx.input(1), cx.output(0));
    plain!(cx.output_dtype(0), T => cx.try_task(move |m| {
        kernel::take(m.pool(), (n, inner), &m.read::<T>(x), &m.i32(ids), &mut m.write::<T>(y))
    }));
}

pub fn gather(op: &Gather, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let picks = cx.input_sizes(1)[op.axis];
    let (x, ids, y) = (cx.input(0), cx.input(1), cx.output(0));
    plain!(cx.output_dtype(0), T => cx.try_task(move |m| {
        kernel::gather(m.pool(), (n, picks, inner), &m.read::<T>(x), &m.i32(ids), &mut m.write::<T>(y))
    }));
}

pub fn take_add(op: &TakeAdd, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (ids, (x, y, source)) = (cx.input(1), in_place(cx, 2));
    cx.try_task(move |m| {
        begin::<f32>(m, x, y);
        kernel::take_add(m.pool(), (n, inner), &m.i32(ids), &m.f32(source), &mut m.f32_mut(y))
    });
}

pub fn scatter_add(op: &ScatterAdd, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let picks = cx.input_sizes(1)[op.axis];
    let (ids, (x, y, source)) = (cx.input(1), in_place(cx, 2));
    cx.try_task(move |m| {
        begin::<f32>(m, x, y);
        kernel::scatter_add(m.pool(), (n, picks, inner), &m.i32(ids), &m.f32(source), &mut m.f32_mut(y))
    });
}
