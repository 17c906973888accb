//! Running sums, places of extremes and sorting on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::scan::{ArgExtreme, CumSum};
use crate::ops::sort::{Sort, order};

/// Calls `f` for every line along `axis`: with the index whose entry `axis` is 0 and the line's
/// values.
fn lines(x: &RefArray, axis: usize, mut f: impl FnMut(&[usize], Vec<f64>)) {
    let mut heads = x.sizes.clone();
    heads[axis] = 1;
    for_each_index(&heads, |head| {
        let mut index = head.to_vec();
        let line = (0..x.sizes[axis]).map(|i| {
            index[axis] = i;
            x.at(&index)
        });
        f(head, line.collect());
    });
}

fn put(out: &mut RefArray, head: &[usize], axis: usize, line: impl Iterator<Item = f64>) {
    let mut index = head.to_vec();
    for (i, v) in line.enumerate() {
        index[axis] = i;
        let position = out.offset(&index);
        out.data[position] = v;
    }
}

pub fn cumsum(op: &CumSum, cx: &Eval) -> RefArray {
    let mut out = cx.inputs[0].clone();
    lines(cx.inputs[0], op.axis, |head, line| {
        let sums = (0..line.len()).map(|i| if op.reverse { line[i..].iter().sum() } else { line[..=i].iter().sum() });
        put(&mut out, head, op.axis, sums);
    });
    out
}

pub fn arg_extreme(op: &ArgExtreme, cx: &Eval) -> Result<RefArray, String> {
    let x = cx.inputs[0];
    if x.sizes[op.axis] == 0 && !cx.outputs[0].contains(&0) {
        return Err("looks for a place among no values".into());
    }
    let mut out = vec![];
    lines(x, op.axis, |_, line| {
        let mut best = 0;
        for (i, v) in line.iter().enumerate() {
            let better = if op.largest { *v > line[best] } else { *v < line[best] };
            if !line[best].is_nan() && (better || v.is_nan()) {
                best = i;
            }
        }
        out.push(best as f64);
    });
    Ok(RefArray::new(&cx.outputs[0], out))
}

pub fn sort(op: &Sort, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let x = cx.inputs[0];
    let (n, k) = (x.sizes[op.axis], cx.outputs[0][op.axis]);
    if k > n {
        return Err(format!("takes the first {k} of {n} values"));
    }
    let mut values = RefArray::filled(&cx.outputs[0], 0.0);
    let mut positions = values.clone();
    lines(x, op.axis, |head, line| {
        let mut places: Vec<usize> = (0..n).collect();
        places.sort_by(|a, b| order(line[*a], line[*b], op.descending));
        places.truncate(k);
        put(&mut values, head, op.axis, places.iter().map(|p| line[*p]));
        put(&mut positions, head, op.axis, places.iter().map(|p| *p as f64));
    });
    Ok(vec![values, positions])
}
