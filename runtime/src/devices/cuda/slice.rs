//! Slices, concatenation and padding on GPUs. A slice is a view; what joins values copies each input to its
//! place.

use super::lower::{Lower, Lowering};
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::cache::{WriteRows, check_rows};
use crate::ops::pad::{Pad, Padding};
use crate::ops::slice::{Concat, DynamicSlice, Flip, Slice, UpdateSlice, check_block};
use mobilis_cuda::Ptr;
use mobilis_cuda::copy::{self, Edge, Moved, Strided};

fn split_at(sizes: &[usize], axis: usize) -> (usize, usize, usize) {
    (sizes[..axis].iter().product(), sizes[axis], sizes[axis + 1..].iter().product())
}

fn signed(strides: &[usize]) -> Vec<i64> {
    strides.iter().map(|s| *s as i64).collect()
}

pub fn slice(op: &Slice, cx: &mut Lower) -> Lowering {
    let start = cx.extent(&op.start)?;
    let n = cx.input_sizes(0)[op.axis];
    let length = cx.output_sizes(0)[op.axis];
    op.check(n as u64, start as u64, length as u64)?;
    let view = cx.as_stored(0);
    // An empty slice may start behind the last value.
    let offset = if length == 0 { view.offset } else { view.offset + start * view.strides[op.axis] };
    let mut out = View { offset, ..view };
    out.sizes[op.axis] = length;
    out.strides[op.axis] *= op.step as usize;
    cx.alias(0, out);
    Ok(())
}

pub fn dynamic_slice(op: &DynamicSlice, cx: &mut Lower) -> Lowering {
    let (outer, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let length = cx.output_sizes(0)[op.axis];
    let (x, start, y) = (cx.input(0), cx.input(1), cx.output(0));
    let found = guard(cx, length, n);
    let s = Moved { outer, n, length, inner, bytes: cx.output_dtype(0).bytes() };
    cx.launch(copy::moved(x, y, start, found, s, false)?);
    Ok(())
}

fn guard(cx: &mut Lower, length: usize, n: usize) -> Ptr {
    cx.guard(move |[start, _]| check_block(i64::from(start), length, n).err().unwrap_or_default())
}

pub fn update_slice(op: &UpdateSlice, cx: &mut Lower) -> Lowering {
    let (outer, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let length = cx.input_sizes(1)[op.axis];
    let start = cx.input(2);
    let (y, block) = in_place(cx, 1);
    let found = guard(cx, length, n);
    let s = Moved { outer, n, length, inner, bytes: cx.output_dtype(0).bytes() };
    cx.launch(copy::moved(block, y, start, found, s, true)?);
    Ok(())
}

pub fn write_rows(op: &WriteRows, cx: &mut Lower) -> Lowering {
    let sizes = cx.input_sizes(0);
    let (batch, slots, inner) = (sizes[0], sizes[1], sizes[2..].iter().product::<usize>());
    let (t, wrap) = (cx.input_sizes(1)[1], op.wrap);
    let (start, count) = (cx.input(2), cx.input(3));
    let (y, block) = in_place(cx, 1);
    let found = cx.guard(move |[start, count]| check_rows(start, count, t, slots, wrap).err().unwrap_or_default());
    cx.launch(copy::write_rows((block, y), (start, count, found), (batch, t, slots, inner), wrap)?);
    Ok(())
}

/// For operations that change a part of their first input: the output, which has that input's values and
/// takes its place where nobody else needs it, and input `other`, not in the memory that is written.
pub fn in_place(cx: &mut Lower, other: usize) -> (Ptr, Ptr) {
    let view = cx.view(0);
    // What begins a buffer may be the same memory; what lies within one might overlap.
    let moves_in = view.is_contiguous() && view.offset == 0;
    let slot = |at: Ptr| at.0 >> 40;
    let x = cx.input(0);
    let y = cx.output_in_place(0, moves_in.then_some(0));
    let view = cx.view(other);
    let at = cx.address(&view);
    let other = if slot(at) == slot(x) || slot(at) == slot(y) { cx.packed(&view) } else { cx.input(other) };
    let bytes = cx.output_sizes(0).iter().product::<usize>() * cx.output_dtype(0).bytes();
    cx.copy(x, y, bytes);
    (y, other)
}

/// The output with its strides, made now.
fn output(cx: &mut Lower) -> (Ptr, View) {
    let y = cx.output(0);
    (y, View::whole(0, cx.output_sizes(0), cx.output_dtype(0)))
}

pub fn concat(op: &Concat, cx: &mut Lower) -> Lowering {
    let (y, whole) = output(cx);
    let bytes = whole.dtype.bytes();
    let mut position = 0;
    for i in 0..cx.inputs() {
        let view = cx.view(i);
        let from = Strided { at: cx.address(&view), strides: signed(&view.strides) };
        let to = Strided { at: y.at(position * whole.strides[op.axis] * bytes), strides: signed(&whole.strides) };
        cx.launch(copy::copy(&from, &to, &view.sizes, bytes)?);
        position += view.sizes[op.axis];
    }
    Ok(())
}

pub fn flip(op: &Flip, cx: &mut Lower) -> Lowering {
    let view = cx.view(0);
    let (y, whole) = output(cx);
    let mut strides = signed(&view.strides);
    let last = view.sizes[op.axis].saturating_sub(1) * view.strides[op.axis];
    strides[op.axis] = -strides[op.axis];
    let from = Strided { at: cx.address(&view).at(last * view.dtype.bytes()), strides };
    let to = Strided { at: y, strides: signed(&whole.strides) };
    cx.launch(copy::copy(&from, &to, &view.sizes, view.dtype.bytes())?);
    Ok(())
}

pub fn pad(op: &Pad, cx: &mut Lower) -> Lowering {
    let (outer, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (before, after) = (cx.extent(&op.before)?, cx.extent(&op.after)?);
    op.mode.check(n as u64, before as u64, after as u64)?;
    let dtype = cx.output_dtype(0);
    let m = cx.output_sizes(0)[op.axis];
    let edge = match op.mode {
        Padding::Constant(value) => {
            let view = cx.view(0);
            let (y, whole) = output(cx);
            let count = whole.count();
            match dtype {
                DType::Bool => cx.fill(y, value as u8, count),
                _ if value == 0.0 => cx.fill(y, 0, 4 * count),
                DType::F32 => cx.launch(copy::fill(y, (value as f32).to_bits(), count)?),
                DType::I32 => cx.launch(copy::fill(y, (value as i32).cast_unsigned(), count)?),
            }
            let from = Strided { at: cx.address(&view), strides: signed(&view.strides) };
            let at = y.at(before * whole.strides[op.axis] * dtype.bytes());
            let to = Strided { at, strides: signed(&whole.strides) };
            cx.launch(copy::copy(&from, &to, &view.sizes, dtype.bytes())?);
            return Ok(());
        }
        Padding::Reflect => Edge::Reflect,
        Padding::Replicate => Edge::Replicate,
        Padding::Circular => Edge::Circular,
    };
    let (x, y) = (cx.input(0), cx.output(0));
    cx.launch(copy::pad((x, y), (outer, n, m, inner), before, edge, dtype.bytes())?);
    Ok(())
}
