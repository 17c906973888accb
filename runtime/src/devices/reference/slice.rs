//! Slices, concatenation, padding and windows on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::cache::{WriteRows, check_rows};
use crate::ops::pad::{Pad, Padding};
use crate::ops::slice::{Concat, DynamicSlice, Flip, Slice, UpdateSlice};
use crate::ops::window::{Fold, Unfold};

/// `x` at an index whose entry `axis` is replaced by `f` of it.
fn moved(x: &RefArray, sizes: &[usize], axis: usize, f: impl Fn(usize) -> usize) -> RefArray {
    RefArray::from_fn(sizes, |index| {
        let mut source = index.to_vec();
        source[axis] = f(index[axis]);
        x.at(&source)
    })
}

pub fn slice(op: &Slice, cx: &Eval) -> Result<RefArray, String> {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let start = op.start.eval(cx.sizes).map_err(|e| e.to_string())?;
    op.check(x.sizes[op.axis] as u64, start as u64, sizes[op.axis] as u64)?;
    Ok(moved(x, sizes, op.axis, |i| start + i * op.step as usize))
}

/// Where a block of `length` values starts in an axis of `n`.
fn place(offset: &RefArray, length: usize, n: usize) -> Result<usize, String> {
    crate::ops::slice::check_block(offset.data[0] as i64, length, n)
}

pub fn dynamic_slice(op: &DynamicSlice, cx: &Eval) -> Result<RefArray, String> {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let start = place(cx.inputs[1], sizes[op.axis], x.sizes[op.axis])?;
    Ok(moved(x, sizes, op.axis, |i| start + i))
}

pub fn update_slice(op: &UpdateSlice, cx: &Eval) -> Result<RefArray, String> {
    let (x, block) = (cx.inputs[0], cx.inputs[1]);
    let start = place(cx.inputs[2], block.sizes[op.axis], x.sizes[op.axis])?;
    let mut out = x.clone();
    for_each_index(&block.sizes, |index| {
        let mut target = index.to_vec();
        target[op.axis] += start;
        let position = out.offset(&target);
        out.data[position] = block.at(index);
    });
    Ok(out)
}

pub fn write_rows(op: &WriteRows, cx: &Eval) -> Result<RefArray, String> {
    let (x, block, start, count) = (cx.inputs[0], cx.inputs[1], cx.inputs[2], cx.inputs[3]);
    let (t, slots) = (block.sizes[1], x.sizes[1]);
    let mut out = x.clone();
    let places: Result<Vec<(usize, usize)>, String> =
        (0..x.sizes[0]).map(|b| check_rows(start.data[b] as i32, count.data[b] as i32, t, slots, op.wrap)).collect();
    let places = places?;
    // In the order of positions, so that of two entries for one slot the later stays.
    for_each_index(&block.sizes, |index| {
        let (first, many) = places[index[0]];
        if index[1] < many {
            let mut target = index.to_vec();
            target[1] = (first + index[1]) % slots;
            let position = out.offset(&target);
            out.data[position] = block.at(index);
        }
    });
    Ok(out)
}

pub fn concat(op: &Concat, cx: &Eval) -> RefArray {
    RefArray::from_fn(&cx.outputs[0], |index| {
        let mut source = index.to_vec();
        let mut parts = cx.inputs.iter();
        loop {
            let part = parts.next().expect("the parts add up to the result");
            if source[op.axis] < part.sizes[op.axis] {
                return part.at(&source);
            }
            source[op.axis] -= part.sizes[op.axis];
        }
    })
}

pub fn flip(op: &Flip, cx: &Eval) -> RefArray {
    let x = cx.inputs[0];
    moved(x, &cx.outputs[0], op.axis, |i| x.sizes[op.axis] - 1 - i)
}

pub fn pad(op: &Pad, cx: &Eval) -> Result<RefArray, String> {
    let x = cx.inputs[0];
    let n = x.sizes[op.axis];
    let before = op.before.eval(cx.sizes).map_err(|e| e.to_string())?;
    let after = op.after.eval(cx.sizes).map_err(|e| e.to_string())?;
    op.mode.check(n as u64, before as u64, after as u64)?;
    Ok(RefArray::from_fn(&cx.outputs[0], |index| {
        let mut source = index.to_vec();
        match (op.mode.source(index[op.axis] as isize - before as isize, n), op.mode) {
            (Some(i), _) => {
                source[op.axis] = i;
                x.at(&source)
            }
            (None, Padding::Constant(value)) => value,
            (None, _) => unreachable!("only constants come from nowhere"),
        }
    }))
}

pub fn unfold(op: &Unfold, cx: &Eval) -> Result<RefArray, String> {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let (stride, dilation) = (op.stride as usize, op.dilation as usize);
    crate::ops::window::check_sizes(x.sizes[op.axis], sizes[op.axis], sizes[op.axis + 1], stride, dilation)?;
    Ok(RefArray::from_fn(sizes, |index| {
        let mut source = index.to_vec();
        let k = source.remove(op.axis + 1);
        source[op.axis] = index[op.axis] * stride + k * dilation;
        x.at(&source)
    }))
}

pub fn fold(op: &Fold, cx: &Eval) -> Result<RefArray, String> {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let (stride, dilation) = (op.stride as usize, op.dilation as usize);
    crate::ops::window::check_sizes(sizes[op.axis], x.sizes[op.axis], x.sizes[op.axis + 1], stride, dilation)?;
    let mut out = RefArray::filled(sizes, 0.0);
    for_each_index(&x.sizes, |index| {
        let mut target = index.to_vec();
        let k = target.remove(op.axis + 1);
        target[op.axis] = index[op.axis] * stride + k * dilation;
        let position = out.offset(&target);
        out.data[position] += x.at(index);
    });
    Ok(out)
}
