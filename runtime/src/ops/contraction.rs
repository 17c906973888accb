//! Contraction: sums of products over named dimensions (`einsum!`).
//!
//! `out[o..] = sum over the labels not in o of prod_i operand_i[labels_i..]`. Matrix products,
//! batched or not, transposed or not, are contractions of two operands; devices find the
//! matrix product inside.

use super::elementwise::{self, CompareKind};
use super::{Cost, GradContext, NoGradient, Rule, leaf, reduce};
use crate::graph::trace::{Handle, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

/// A sum of products of one or two operands. Labels number the dimensions; a label that is in
/// several places means one dimension.
#[derive(Clone, Debug)]
pub struct Einsum {
    /// For each operand the label of each dimension.
    pub operands: Vec<Vec<u8>>,
    /// The labels of the result.
    pub output: Vec<u8>,
}

impl Einsum {
    /// The dimension of every label.
    fn dims(&self, inputs: &[&TensorType]) -> Result<Vec<Option<Dim>>, String> {
        let mut dims: Vec<Option<Dim>> = vec![None; 256];
        for (labels, ty) in self.operands.iter().zip(inputs) {
            if labels.len() != ty.rank() {
                return Err(format!("{} labels for {ty}", labels.len()));
            }
            for (label, dim) in labels.iter().zip(&ty.dims) {
                match &dims[*label as usize] {
                    Some(known) if known.extent != dim.extent => {
                        return Err(format!("`{known}` and `{dim}` are contracted with each other"));
                    }
                    Some(_) => {}
                    None => dims[*label as usize] = Some(dim.clone()),
                }
            }
        }
        Ok(dims)
    }
}

impl Rule for Einsum {
    fn name(&self) -> &'static str {
        "einsum"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs.is_empty() || inputs.len() > 2 || inputs.len() != self.operands.len() {
            return Err(format!("takes 1 or 2 operands, is given {}", inputs.len()));
        }
        if let Some(ty) = inputs.iter().find(|t| t.dtype != DType::F32) {
            return Err(format!("takes real operands, is given {ty}"));
        }
        let dims = self.dims(inputs)?;
        let out = self.output.iter().map(|l| dims[*l as usize].clone());
        let out: Option<Vec<Dim>> = out.collect();
        Ok(vec![TensorType::new(out.ok_or("a result dimension is in no operand")?, DType::F32)])
    }

    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let g = cx.grad();
        let mut grads = vec![];
        for (i, labels) in self.operands.iter().enumerate() {
            if !cx.wanted[i] {
                grads.push(None);
                continue;
            }
            // A label that stands twice reads a diagonal: its gradient is taken at its first place
            // and put back onto the diagonal at last.
            let dims = type_of(cx.inputs[i]).dims;
            let (once, again): (Vec<usize>, Vec<usize>) =
                (0..labels.len()).partition(|p| !labels[..*p].contains(&labels[*p]));
            // The gradient by an operand is the contraction of the result's gradient with the
            // other operand; labels that only this operand has are summed, so their gradient
            // is repeated.
            let mut handles = vec![g];
            let mut terms: Vec<&[u8]> = vec![&self.output];
            for k in (0..self.operands.len()).filter(|k| *k != i) {
                handles.push(cx.inputs[k]);
                terms.push(&self.operands[k]);
            }
            let known = |l: &u8| terms.iter().any(|t| t.contains(l));
            let inner: Vec<u8> = once.iter().map(|p| labels[*p]).filter(known).collect();
            let alone: Vec<usize> = (0..once.len()).filter(|k| !known(&labels[once[*k]])).collect();
            let once_dims: Vec<Dim> = once.iter().map(|p| dims[*p].clone()).collect();
            let grad = reduce::restore(einsum(&handles, &terms, &inner), &once_dims, &alone);
            grads.push(Some(onto_diagonals(grad, labels, &dims, &again)));
        }
        Ok(grads)
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let work = match self.dims(inputs) {
            Ok(dims) => Extent::product(dims.iter().flatten().map(|d| &d.extent)),
            Err(_) => Extent::constant(0),
        };
        Cost::streaming(Extent::mul(work, Extent::constant(2)), inputs, outputs)
    }

    fn attributes(&self) -> String {
        let word = |labels: &Vec<u8>| labels.iter().map(|l| (b'a' + l % 26) as char).collect::<String>();
        format!("{}->{}", self.operands.iter().map(word).collect::<Vec<_>>().join(","), word(&self.output))
    }
}

/// The value repeated along the dimensions `again`, which bear labels of earlier ones, and zero
/// away from the diagonals.
fn onto_diagonals(h: Handle, labels: &[u8], dims: &[Dim], again: &[usize]) -> Handle {
    if again.is_empty() {
        return h;
    }
    let mut h = reduce::restore(h, dims, again);
    let ty = type_of(h);
    for p in again {
        let first = labels.iter().position(|l| *l == labels[*p]).expect("a label that stands again stands before");
        let on = elementwise::compare(CompareKind::Eq, leaf::iota(first, &ty), leaf::iota(*p, &ty));
        h = elementwise::select(on, h, leaf::fill(0.0, ty.clone()));
    }
    h
}

/// A contraction of any number of operands, two at a time from the left. Labels that appear in
/// one operand alone and not in the result are summed first.
pub fn einsum(operands: &[Handle], labels: &[&[u8]], output: &[u8]) -> Handle {
    let mut handles = operands.to_vec();
    let mut terms: Vec<Vec<u8>> = labels.iter().map(|l| l.to_vec()).collect();
    if terms.len() > 1 {
        for i in 0..terms.len() {
            let lonely = |p: &usize| {
                let label = terms[i][*p];
                let elsewhere = terms.iter().enumerate().any(|(k, t)| k != i && t.contains(&label));
                let twice = terms[i].iter().filter(|l| **l == label).count() > 1;
                !elsewhere && !twice && !output.contains(&label)
            };
            let lonely: Vec<usize> = (0..terms[i].len()).filter(lonely).collect();
            handles[i] = reduce::reduce(handles[i], reduce::Kind::Sum, &lonely);
            let mut position = 0..;
            terms[i].retain(|_| !lonely.contains(&position.next().expect("an open range does not end")));
        }
    }
    while handles.len() > 2 {
        let (a, b) = (terms.remove(0), terms.remove(0));
        let (x, y) = (handles.remove(0), handles.remove(0));
        let mut keep: Vec<u8> = vec![];
        for l in a.iter().chain(&b) {
            if !keep.contains(l) && (output.contains(l) || terms.iter().any(|t| t.contains(l))) {
                keep.push(*l);
            }
        }
        handles.insert(0, op1(Einsum { operands: vec![a, b], output: keep.clone() }, &[x, y]));
        terms.insert(0, keep);
    }
    if terms.len() == 1 && terms[0] == output {
        return handles[0];
    }
    op1(Einsum { operands: terms, output: output.to_vec() }, &handles)
}

/// `x[.., i] * w[o, i] -> [.., o]`: a linear layer without bias.
pub fn linear(x: Handle, weight: Handle) -> Handle {
    let rank = type_of(x).rank() as u8;
    let x_labels: Vec<u8> = (0..rank).collect();
    let mut out = x_labels.clone();
    if let Some(last) = out.last_mut() {
        *last = rank;
    }
    einsum(&[x, weight], &[&x_labels, &[rank, rank.saturating_sub(1)]], &out)
}
