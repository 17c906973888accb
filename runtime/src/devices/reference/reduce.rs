//! Reductions on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::reduce::{Kind, Reduce};

pub fn reduce(op: &Reduce, cx: &Eval) -> RefArray {
    let x = cx.inputs[0];
    let start = match op.kind {
        Kind::Sum | Kind::Any => 0.0,
        Kind::All => 1.0,
        Kind::Max => f64::NEG_INFINITY,
        Kind::Min => f64::INFINITY,
    };
    let mut out = RefArray::filled(&cx.outputs[0], start);
    for_each_index(&x.sizes, |index| {
        let kept: Vec<usize> =
            index.iter().enumerate().filter(|(d, _)| !op.positions.contains(d)).map(|(_, i)| *i).collect();
        let v = x.at(index);
        let position = out.offset(&kept);
        let acc = &mut out.data[position];
        *acc = match op.kind {
            Kind::Sum => *acc + v,
            Kind::Max | Kind::Min if v.is_nan() || acc.is_nan() => f64::NAN,
            Kind::Max | Kind::Any => acc.max(v),
            Kind::Min | Kind::All => acc.min(v),
        };
    });
    out
}
