//! Picking and adding by indices on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::gather::{Gather, ScatterAdd, Take, TakeAdd, check_index};

/// Calls `f` with every index of `sizes` and the index that it picks: entry `axis` replaced by
/// what `pick` finds for it, which must be below `n`.
fn picked(
    sizes: &[usize],
    axis: usize,
    n: usize,
    pick: impl Fn(&[usize]) -> f64,
    mut f: impl FnMut(&[usize], &[usize]),
) -> Result<(), String> {
    let mut wrong = Ok(());
    for_each_index(sizes, |index| match check_index(pick(index) as i64, n) {
        Ok(i) if wrong.is_ok() => {
            let mut other = index.to_vec();
            other[axis] = i;
            f(index, &other);
        }
        Ok(_) => {}
        Err(e) => wrong = wrong.clone().and(Err(e)),
    });
    wrong
}

pub fn gather(op: &Gather, cx: &Eval) -> Result<RefArray, String> {
    let (x, ids) = (cx.inputs[0], cx.inputs[1]);
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    picked(
        &ids.sizes,
        op.axis,
        x.sizes[op.axis],
        |i| ids.at(i),
        |to, from| {
            let position = out.offset(to);
            out.data[position] = x.at(from);
        },
    )?;
    Ok(out)
}

pub fn scatter_add(op: &ScatterAdd, cx: &Eval) -> Result<RefArray, String> {
    let (ids, source) = (cx.inputs[1], cx.inputs[2]);
    let mut out = cx.inputs[0].clone();
    let n = out.sizes[op.axis];
    picked(
        &ids.sizes,
        op.axis,
        n,
        |i| ids.at(i),
        |from, to| {
            let position = out.offset(to);
            out.data[position] += source.at(from);
        },
    )?;
    Ok(out)
}

pub fn take(op: &Take, cx: &Eval) -> Result<RefArray, String> {
    let (x, ids) = (cx.inputs[0], cx.inputs[1]);
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    picked(
        &cx.outputs[0],
        op.axis,
        x.sizes[op.axis],
        |i| ids.data[i[op.axis]],
        |to, from| {
            let position = out.offset(to);
            out.data[position] = x.at(from);
        },
    )?;
    Ok(out)
}

pub fn take_add(op: &TakeAdd, cx: &Eval) -> Result<RefArray, String> {
    let (ids, source) = (cx.inputs[1], cx.inputs[2]);
    let mut out = cx.inputs[0].clone();
    let n = out.sizes[op.axis];
    picked(
        &source.sizes,
        op.axis,
        n,
        |i| ids.data[i[op.axis]],
        |from, to| {
            let position = out.offset(to);
            out.data[position] += source.at(from);
        },
    )?;
    Ok(out)
}
