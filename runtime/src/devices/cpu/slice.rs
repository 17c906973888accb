//! Slices, concatenation, padding and windows on the CPU. A slice is a view; what joins values
//! copies each input to its place.

use super::lower::Lower;
use super::view::View;
use super::{plain, split_at};
use crate::graph::DType;
use crate::ops::cache::{WriteRows, check_rows};
use crate::ops::pad::{Pad, Padding};
use crate::ops::slice::{Concat, DynamicSlice, Flip, Slice, UpdateSlice, check_block};
use crate::ops::window::{Fold, Unfold, check_sizes};
use mobilis_kernels::cpu::place::{self, Windows};
use mobilis_kernels::memory::{Memory, Piece, Plain};

pub fn slice(op: &Slice, cx: &mut Lower) -> Result<(), String> {
    let start = cx.extent(&op.start)?;
    let n = cx.input_sizes(0)[op.axis];
    let length = cx.output_sizes(0)[op.axis];
    op.check(n as u64, start as u64, length as u64)?;
    let view = cx.view(0);
    // An empty slice may start behind the last value.
    let offset = if length == 0 { view.offset } else { view.offset + start * view.strides[op.axis] };
    let mut out = View { offset, ..view };
    out.sizes[op.axis] = length;
    out.strides[op.axis] *= op.step as usize;
    cx.alias(0, out);
    Ok(())
}

pub fn dynamic_slice(op: &DynamicSlice, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let length = cx.output_sizes(0)[op.axis];
    let (x, offset, y) = (cx.input(0), cx.input(1), cx.output(0));
    plain!(cx.output_dtype(0), T => cx.try_task(move |m| {
        let start = check_block(i64::from(m.i32(offset)[0]), length, n)?;
        place::cut(m.pool(), &m.read::<T>(x), n * inner, start * inner, &mut m.write::<T>(y), length * inner);
        Ok(())
    }));
}

pub fn update_slice(op: &UpdateSlice, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let length = cx.input_sizes(1)[op.axis];
    let offset = cx.input(2);
    let (x, y, block) = in_place(cx, 1);
    plain!(cx.output_dtype(0), T => cx.try_task(move |m| {
        let start = check_block(i64::from(m.i32(offset)[0]), length, n)?;
        begin::<T>(m, x, y);
        place::place(m.pool(), &m.read::<T>(block), length * inner, &mut m.write::<T>(y), n * inner, start * inner);
        Ok(())
    }));
}

pub fn write_rows(op: &WriteRows, cx: &mut Lower) {
    let sizes = cx.input_sizes(0);
    let (batch, slots, inner) = (sizes[0], sizes[1], sizes[2..].iter().product::<usize>());
    let (t, wrap) = (cx.input_sizes(1)[1], op.wrap);
    let (start, count) = (cx.input(2), cx.input(3));
    let (x, y, block) = in_place(cx, 1);
    plain!(cx.output_dtype(0), T => cx.try_task(move |m| {
        begin::<T>(m, x, y);
        let (start, count) = (m.i32(start), m.i32(count));
        let (from, mut to) = (m.read::<T>(block), m.write::<T>(y));
        for b in 0..batch {
            let (first, many) = check_rows(start[b], count[b], t, slots, wrap)?;
            let (from, to) = (&from[b * t * inner..][..t * inner], &mut to[b * slots * inner..][..slots * inner]);
            // With more entries than slots the last ones stay.
            let mut i = many.saturating_sub(slots);
            while i < many {
                let slot = (first + i) % slots;
                let run = (many - i).min(slots - slot);
                to[slot * inner..][..run * inner].copy_from_slice(&from[i * inner..][..run * inner]);
                i += run;
            }
        }
        Ok(())
    }));
}

/// For operations that change a part of their first input: that input, the output, which takes
/// its place where nobody else needs it, and input `other`, not in the memory that is written.
pub fn in_place(cx: &mut Lower, other: usize) -> (Piece, Piece, Piece) {
    // Bytes are too small for the planner's comparison of places.
    // A part of a buffer that lies behind its beginning would be copied onto itself.
    let view = cx.view(0);
    let moves_in = view.is_contiguous() && view.offset == 0 && cx.output_dtype(0) != DType::Bool;
    let x = cx.input(0);
    let y = cx.output_in_place(0, moves_in.then_some(0));
    let view = cx.view(other);
    let other = if view.slot == x.slot || view.slot == y.slot { cx.packed(&view) } else { cx.input(other) };
    (x, y, other)
}

/// Copies what is not changed, unless it is there already.
pub fn begin<T: Plain>(m: &Memory, x: Piece, y: Piece) {
    let there = x == y || (size_of::<T>() == 4 && m.same(x, y));
    if !there {
        m.write::<T>(y).copy_from_slice(&m.read::<T>(x));
    }
}

pub fn concat(op: &Concat, cx: &mut Lower) {
    let (_, total, inner) = split_at(cx.output_sizes(0), op.axis);
    let y = cx.output(0);
    let mut offset = 0;
    for i in 0..cx.inputs() {
        let row = cx.input_sizes(i)[op.axis] * inner;
        let x = cx.input(i);
        if x.len > 0 {
            plain!(cx.output_dtype(0), T => cx.task(move |m| {
                place::place(m.pool(), &m.read::<T>(x), row, &mut m.write::<T>(y), total * inner, offset);
            }));
        }
        offset += row;
    }
}

pub fn flip(op: &Flip, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (x, y) = (cx.input(0), cx.output(0));
    plain!(cx.output_dtype(0), T => cx.task(move |m| {
        let fill = T::default();
        place::pick(m.pool(), &m.read::<T>(x), (n, n, inner), |i| Some(n - 1 - i), fill, &mut m.write::<T>(y));
    }));
}

pub fn pad(op: &Pad, cx: &mut Lower) -> Result<(), String> {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (before, after) = (cx.extent(&op.before)?, cx.extent(&op.after)?);
    op.mode.check(n as u64, before as u64, after as u64)?;
    let (x, y) = (cx.input(0), cx.output(0));
    let m = cx.output_sizes(0)[op.axis];
    let mode = op.mode;
    if let Padding::Constant(value) = mode {
        plain!(cx.output_dtype(0), T => cx.task(move |memory| {
            let (x, mut y) = (memory.read::<T>(x), memory.write::<T>(y));
            place::pad(memory.pool(), &x, n * inner, value as T, &mut y, m * inner, before * inner);
        }));
        return Ok(());
    }
    plain!(cx.output_dtype(0), T => cx.task(move |memory| {
        let source = |i: usize| mode.source(i as isize - before as isize, n);
        let (x, mut y) = (memory.read::<T>(x), memory.write::<T>(y));
        place::pick(memory.pool(), &x, (n, m, inner), source, T::default(), &mut y);
    }));
    Ok(())
}

pub fn unfold(op: &Unfold, cx: &mut Lower) -> Result<(), String> {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let sizes = cx.output_sizes(0);
    let (windows, kernel) = (sizes[op.axis], sizes[op.axis + 1]);
    let s = Windows { n, windows, kernel, stride: op.stride as usize, dilation: op.dilation as usize, inner };
    check_sizes(n, windows, kernel, s.stride, s.dilation)?;
    let (x, y) = (cx.input(0), cx.output(0));
    plain!(cx.output_dtype(0), T => cx.task(move |m| {
        place::unfold(m.pool(), s, &m.read::<T>(x), &mut m.write::<T>(y));
    }));
    Ok(())
}

pub fn fold(op: &Fold, cx: &mut Lower) -> Result<(), String> {
    let (_, n, inner) = split_at(cx.output_sizes(0), op.axis);
    let sizes = cx.input_sizes(0);
    let (windows, kernel) = (sizes[op.axis], sizes[op.axis + 1]);
    let s = Windows { n, windows, kernel, stride: op.stride as usize, dilation: op.dilation as usize, inner };
    check_sizes(n, windows, kernel, s.stride, s.dilation)?;
    let (x, y) = (cx.input(0), cx.output(0));
    cx.task(move |m| place::fold(m.pool(), s, &m.f32(x), &mut m.f32_mut(y)));
    Ok(())
}
