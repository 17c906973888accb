//! Reductions on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::reduce::{Primitive, Reduce};

pub fn reduce(op: &Reduce, cx: &Eval) -> RefArray {
    let x = cx.inputs[0];
    let start = match op.kind {
        Primitive::Sum | Primitive::SumSquares | Primitive::Any => 0.0,
        Primitive::All => 1.0,
        Primitive::Max => f64::NEG_INFINITY,
        Primitive::LogSumExp => return logsumexp(op, cx),
        Primitive::Min => f64::INFINITY,
    };
    fold(op, x, &cx.outputs[0], start, |acc, v, _| match op.kind {
        Primitive::Max | Primitive::Min if v.is_nan() || acc.is_nan() => f64::NAN,
        Primitive::Max | Primitive::Any => acc.max(v),
        Primitive::Min | Primitive::All => acc.min(v),
        Primitive::SumSquares => acc + v * v,
        Primitive::Sum | Primitive::LogSumExp => acc + v,
    })
}

/// `f(accumulator, value, position of the result)` over every value.
fn fold(op: &Reduce, x: &RefArray, sizes: &[usize], start: f64, f: impl Fn(f64, f64, usize) -> f64) -> RefArray {
    let mut out = RefArray::filled(sizes, start);
    for_each_index(&x.sizes, |index| {
        let kept = index.iter().enumerate().filter(|(d, _)| !op.positions.contains(d)).map(|(_, i)| *i);
        let position = out.offset(&kept.collect::<Vec<usize>>());
        out.data[position] = f(out.data[position], x.at(index), position);
    });
    out
}

/// `max + log(sum(exp(x - max)))`; where the largest value is infinite it is the result.
fn logsumexp(op: &Reduce, cx: &Eval) -> RefArray {
    let (x, sizes) = (cx.inputs[0], &cx.outputs[0]);
    let worse = |acc: f64, v: f64| if v.is_nan() || acc.is_nan() { f64::NAN } else { acc.max(v) };
    let mut out = fold(op, x, sizes, f64::NEG_INFINITY, |acc, v, _| worse(acc, v));
    let sums = fold(op, x, sizes, 0.0, |acc, v, p| acc + (v - out.data[p]).exp());
    for (largest, sum) in out.data.iter_mut().zip(&sums.data) {
        if largest.is_finite() {
            *largest += sum.ln();
        }
    }
    out
}
