//! Contraction on the reference device: one loop over all labels.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::graph::DType;
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

/// Result `j` of a product, without what follows.
pub fn product(op: &Product, j: usize, cx: &Eval) -> RefArray {
    let mut sum: Option<RefArray> = None;
    for i in 0..op.left.len() {
        let (left, right) = (cx.inputs[i], cx.inputs[op.right_input(j, i)]);
        let rows = op.left[i].rows.iter().map(|d| left.sizes[*d]);
        let sizes = rows.chain(op.right[j][i].columns.iter().map(|d| right.sizes[*d])).collect();
        let dtypes = vec![DType::F32; 2];
        let cx = Eval { inputs: vec![left, right], dtypes, outputs: vec![sizes], sizes: cx.sizes };
        let term = einsum(&op.term(j, i), &cx);
        match &mut sum {
            Some(sum) => sum.data.iter_mut().zip(term.data).for_each(|(s, t)| *s += t),
            None => sum = Some(term),
        }
    }
    sum.expect("a product has a left side")
}
