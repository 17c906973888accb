//! Contraction on GPUs: every one of two operands becomes products of matrices.
//!
//! Labels fall into four groups: batch (both operands and the result), rows (first operand and result), columns
//! (second operand and result), inner (both operands, summed). A group whose dimensions follow each other in an
//! operand is one dimension of a matrix there; where they do not, the operand is copied in group order first. The
//! batch may keep two dimensions of its own in every operand. What is summed in one operand alone is a product
//! with ones that stand nowhere: one value, repeated.

use super::lower::{Lower, Lowering};
use super::narrow::packed;
use crate::devices::lower::Emit;
use crate::devices::reference::array::strides as contiguous;
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::contraction::Einsum;
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::{Element, Gemm, Matrix, choose, gemm};

/// Adds the launches of a product.
pub fn multiply(g: &Gemm, cx: &mut Lower) -> Lowering {
    let choice = choose(g, cx.info())?;
    let workspace = if choice.workspace > 0 { cx.scratch(choice.workspace) } else { Ptr::NULL };
    cx.launch(gemm(g, &choice, workspace)?);
    Ok(())
}

/// Places an output: the view that it is.
pub fn own(port: usize, cx: &mut Lower) -> View {
    let piece = cx.place(port, None);
    View { offset: piece.offset, ..View::whole(piece.slot, cx.output_sizes(port), cx.output_dtype(port)) }
}

/// A view whose dimensions are labelled.
#[derive(Clone)]
struct Operand {
    view: View,
    labels: Vec<u8>,
}

impl Operand {
    fn place(&self, label: u8) -> usize {
        self.labels.iter().position(|l| *l == label).expect("groups are made of the operand's labels")
    }

    fn size(&self, group: &[u8]) -> usize {
        group.iter().map(|l| self.view.sizes[self.place(*l)]).product()
    }

    /// The distance between neighbours of a group of labels, where it is one dimension.
    fn stride(&self, group: &[u8]) -> Option<usize> {
        let places: Vec<usize> = group.iter().map(|l| self.place(*l)).collect();
        stride(&self.view, &places)
    }

    /// The operand with its dimensions in another order of labels.
    fn ordered(&self, labels: &[u8]) -> Operand {
        let perm: Vec<usize> = labels.iter().map(|l| self.place(*l)).collect();
        Operand { view: self.view.permute(&perm), labels: labels.to_vec() }
    }

    fn packed(&self, labels: &[u8], cx: &mut Lower) -> Operand {
        let ordered = self.ordered(labels);
        let wide = cx.wide(ordered.view.clone());
        let piece = cx.pack(&wide);
        let view = View { offset: piece.offset, ..View::whole(piece.slot, &ordered.view.sizes, DType::F32) };
        Operand { view, labels: ordered.labels }
    }
}

/// The distance between neighbours of a group of dimensions, where they are one.
pub fn stride(view: &View, dims: &[usize]) -> Option<usize> {
    let dims: Vec<(usize, usize)> =
        dims.iter().map(|d| (view.sizes[*d], view.strides[*d])).filter(|d| d.0 != 1).collect();
    let one = dims.windows(2).all(|w| w[0].1 == w[1].0 * w[1].1);
    one.then(|| dims.last().map_or(0, |d| d.1))
}

pub fn lower(op: &Einsum, cx: &mut Lower) -> Lowering {
    if super::product::stored_side(op, cx)? {
        return Ok(());
    }
    let views: Vec<View> = (0..op.operands.len()).map(|i| cx.as_stored(i)).collect();
    let operand = |(view, labels): (View, &Vec<u8>)| diagonal(Operand { view, labels: labels.clone() });
    let operands: Vec<Operand> = views.into_iter().zip(&op.operands).map(operand).collect();
    match operands.as_slice() {
        [a, b] => product(a.clone(), b.clone(), &op.output, cx),
        _ => single(&operands[0], &op.output, cx),
    }
}

/// A label that an operand has twice walks both dimensions at once.
fn diagonal(x: Operand) -> Operand {
    let mut out = Operand { view: View { sizes: vec![], strides: vec![], ..x.view.clone() }, labels: vec![] };
    for (p, label) in x.labels.iter().enumerate() {
        match out.labels.iter().position(|l| l == label) {
            Some(q) => out.view.strides[q] += x.view.strides[p],
            None => {
                out.labels.push(*label);
                out.view.sizes.push(x.view.sizes[p]);
                out.view.strides.push(x.view.strides[p]);
            }
        }
    }
    out
}

/// One operand: its dimensions in the result's order, the rest summed.
fn single(x: &Operand, output: &[u8], cx: &mut Lower) -> Lowering {
    let to = own(0, cx);
    if x.labels.iter().all(|l| output.contains(l)) {
        return cx.copy_strided(&x.ordered(output).view, &to);
    }
    summed(x, output, cx.address(&to), cx)
}

/// The operand summed over the labels that are not kept.
fn summed(x: &Operand, keep: &[u8], to: Ptr, cx: &mut Lower) -> Lowering {
    let rest: Vec<u8> = x.labels.iter().copied().filter(|l| !keep.contains(l)).collect();
    let x = match (x.stride(keep), x.stride(&rest)) {
        (Some(_), Some(_)) => x.clone(),
        _ => x.packed(&[keep, &rest].concat(), cx),
    };
    let one = cx.constant(&1f32.to_ne_bytes());
    let ones = Matrix { at: cx.address(&one), ..Matrix::default() };
    let at = |group: &[u8]| x.stride(group).expect("a packed group is one dimension");
    let element = cx.element(&x.view);
    let a = Matrix { at: cx.address(&x.view), element, row: at(keep), col: at(&rest), ..Matrix::default() };
    let c = Matrix { at: to, row: 1, col: 1, ..Matrix::default() };
    multiply(&Gemm::new([x.size(keep), 1, x.size(&rest)], a, ones, c), cx)
}

/// The operand without the labels that neither the other one nor the result has, summed over them.
fn alone(x: &mut Operand, other: &[u8], output: &[u8], cx: &mut Lower) -> Lowering {
    let keep: Vec<u8> = x.labels.iter().copied().filter(|l| other.contains(l) || output.contains(l)).collect();
    if keep.len() == x.labels.len() {
        return Ok(());
    }
    let sizes: Vec<usize> = keep.iter().map(|l| x.size(&[*l])).collect();
    let piece = cx.buffer(sizes.iter().product(), DType::F32);
    let view = View::whole(piece.slot, &sizes, DType::F32);
    summed(x, &keep, cx.address(&view), cx)?;
    *x = Operand { view, labels: keep };
    Ok(())
}

/// Neighbouring labels of the batch that are one dimension in all operands, as groups.
fn levels(batch: &[u8], operands: [&Operand; 3]) -> Vec<Vec<u8>> {
    let mut groups: Vec<Vec<u8>> = vec![];
    for label in batch.iter().filter(|l| operands[0].size(&[**l]) != 1) {
        let joined = groups.last().map(|g| [g.as_slice(), &[*label]].concat());
        match joined.filter(|g| operands.iter().all(|x| x.stride(g).is_some())) {
            Some(group) => *groups.last_mut().expect("there is one") = group,
            None => groups.push(vec![*label]),
        }
    }
    groups
}

fn product(mut a: Operand, mut b: Operand, output: &[u8], cx: &mut Lower) -> Lowering {
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    alone(&mut a, &in_b, output, cx)?;
    alone(&mut b, &in_a, output, cx)?;
    let whole = a.labels.len() == in_a.len() && b.labels.len() == in_b.len();
    let pick = |of_a: bool, of_b: bool| -> Vec<u8> {
        output.iter().copied().filter(|l| in_a.contains(l) == of_a && in_b.contains(l) == of_b).collect()
    };
    let (batch, mut rows, mut columns) = (pick(true, true), pick(true, false), pick(false, true));
    // The inner labels in the order in which the larger operand has them.
    let lead = if a.view.count() >= b.view.count() { &a } else { &b };
    let inner: Vec<u8> = lead.labels.iter().copied().filter(|l| !output.contains(l)).collect();
    let mut out = Operand { view: cx.output_planned(0, None), labels: output.to_vec() };
    let mut c = out.clone();
    // Where rows or columns are several dimensions of the result, it is made in another order first.
    if c.stride(&rows).is_none() || c.stride(&columns).is_none() {
        rows = a.labels.iter().copied().filter(|l| rows.contains(l)).collect();
        columns = b.labels.iter().copied().filter(|l| columns.contains(l)).collect();
        c = elsewhere(&out, &[batch.as_slice(), &rows, &columns].concat(), cx);
    }
    if a.stride(&rows).is_none() || a.stride(&inner).is_none() {
        a = a.packed(&[batch.as_slice(), &rows, &inner].concat(), cx);
    }
    if b.stride(&inner).is_none() || b.stride(&columns).is_none() {
        b = b.packed(&[batch.as_slice(), &inner, &columns].concat(), cx);
    }
    let mut batches = levels(&batch, [&a, &b, &c]);
    if batches.len() > 2 {
        a = a.packed(&[batch.as_slice(), &rows, &inner].concat(), cx);
        b = b.packed(&[batch.as_slice(), &inner, &columns].concat(), cx);
        c = elsewhere(&out, &[batch.as_slice(), &rows, &columns].concat(), cx);
        batches = levels(&batch, [&a, &b, &c]);
    }
    while batches.len() < 2 {
        batches.insert(0, vec![]);
    }
    let matrix = |x: &Operand, rows: &[u8], columns: &[u8], cx: &Lower| {
        let at = |group: &[u8]| x.stride(group).expect("groups are one dimension by now");
        let (outer, inner) = (at(&batches[0]), at(&batches[1]));
        let element = cx.element(&x.view);
        Matrix { at: cx.address(&x.view), element, row: at(rows), col: at(columns), outer, inner }
    };
    let mut g = Gemm::new(
        [a.size(&rows), b.size(&columns), a.size(&inner)],
        matrix(&a, &rows, &inner, cx),
        matrix(&b, &inner, &columns, cx),
        matrix(&c, &rows, &columns, cx),
    );
    g.batch = [a.size(&batches[0]), a.size(&batches[1])];
    // What was summed alone before is of no format.
    let g = if whole { packed(&g, [0, 1], cx)? } else { g };
    multiply(&g, cx)?;
    if c.view.slot != out.view.slot {
        if cx.element(&out.view) != Element::F32 {
            out.view = own(0, cx);
        }
        cx.copy_strided(&c.ordered(output).view, &out.view)?;
    }
    Ok(())
}

/// Room for a result whose dimensions stand in another order.
fn elsewhere(out: &Operand, order: &[u8], cx: &mut Lower) -> Operand {
    let ordered = out.ordered(order);
    let piece = cx.buffer(ordered.view.count(), DType::F32);
    let strides = contiguous(&ordered.view.sizes);
    Operand { view: View { slot: piece.slot, offset: 0, strides, ..ordered.view }, labels: order.to_vec() }
}
