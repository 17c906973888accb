//! Contraction on the reference device: one loop over all labels.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::contraction::Einsum;

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
    let place = |term: &[u8]| -> Vec<usize> {
        let find = |l: &u8| labels.iter().position(|k| k == l).expect("every label has a size");
        term.iter().map(find).collect()
    };
    let places: Vec<Vec<usize>> = op.operands.iter().map(|t| place(t)).collect();
    let out_place = place(&op.output);
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    for_each_index(&sizes, |index| {
        let pick = |places: &[usize]| places.iter().map(|p| index[*p]).collect::<Vec<_>>();
        let product: f64 = places.iter().zip(&cx.inputs).map(|(p, x)| x.at(&pick(p))).product();
        let position = out.offset(&pick(&out_place));
        out.data[position] += product;
    });
    out
}
