//! Contraction on the reference device: one loop over all labels.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::contraction::Einsum;
use crate::ops::product::Product;

pub fn einsum(op: &Einsum, cx: &Eval) -> RefArray {
    let mut labels: Vec<u8> = vec![];
    let mut sizes: Vec<usize> = vec![];
    for (term, x) in op.operands.iter().zip(&cx.inputs) {
        for (label, size) in term.iter().zip(&x.sizes) {
            if !labels.contains(label) {
                labels.push(*label);
                sizes.push(*size);
            }
        }
    }
    // How far one step along each label goes in an array; a label that is there twice (a
    // diagonal) goes along both dimensions.
    let strides = |term: &[u8], x: &RefArray| -> Vec<usize> {
        let of = |label: &u8| term.iter().zip(x.strides()).filter(|(l, _)| *l == label).map(|(_, s)| s).sum();
        labels.iter().map(of).collect()
    };
    let terms: Vec<Vec<usize>> = op.operands.iter().zip(&cx.inputs).map(|(t, x)| strides(t, x)).collect();
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let target = strides(&op.output, &out);
    let at = |index: &[usize], strides: &[usize]| index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
    for_each_index(&sizes, |index| {
        let product: f64 = terms.iter().zip(&cx.inputs).map(|(t, x)| x.data[at(index, t)]).product();
        out.data[at(index, &target)] += product;
    });
    out
}

/// Every result is the sum of its contractions.
pub fn product(op: &Product, cx: &Eval) -> Vec<RefArray> {
    let result = |j: usize| {
        let mut sum = RefArray::filled(&cx.outputs[j], 0.0);
        for i in 0..op.left.len() {
            let (left, right) = (i, op.right_input(j, i));
            let cx = Eval {
                inputs: vec![cx.inputs[left], cx.inputs[right]],
                dtypes: vec![cx.dtypes[left], cx.dtypes[right]],
                outputs: vec![cx.outputs[j].clone()],
                sizes: cx.sizes,
            };
            let term = einsum(&op.term(j, i), &cx);
            sum.data.iter_mut().zip(term.data).for_each(|(s, t)| *s += t);
        }
        sum
    };
    (0..op.right.len()).map(result).collect()
}
