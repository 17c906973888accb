//! Contraction on the CPU: every one of two operands becomes matrix products.
//!
//! Labels fall into four groups: batch (in both operands and the result), rows (first operand
//! and result), columns (second operand and result), inner (both operands, summed). A group
//! whose dimensions follow each other in an operand is one dimension of a matrix there; where
//! they do not, the operand is copied in group order first.

use super::lower::Lower;
use super::view::View;
use crate::devices::lower::Emit;
use crate::devices::reference::array::strides as contiguous;
use crate::graph::DType;
use crate::ops::contraction::Einsum;
use crate::transforms::bands::{Filters, filters};
use mobilis_kernels::cpu::bands::{Batch, bands};
use mobilis_kernels::cpu::contract::{Batched, batched_gemm, diagonal_sum};
use mobilis_kernels::cpu::gemm::{self, Columns, Left, Matrix, Product};
use mobilis_kernels::memory::Piece;
use mobilis_kernels::pool::Pool;

/// A view whose dimensions are labelled.
#[derive(Clone)]
struct Operand {
    view: View,
    labels: Vec<u8>,
}

impl Operand {
    /// The stride of a group of labels as one dimension, where it is one.
    fn stride(&self, group: &[u8]) -> Option<usize> {
        let dims: Vec<(usize, usize)> = group
            .iter()
            .map(|l| self.labels.iter().position(|k| k == l).expect("groups are made of the operand's labels"))
            .map(|p| (self.view.sizes[p], self.view.strides[p]))
            .filter(|d| d.0 != 1)
            .collect();
        if dims.windows(2).any(|w| w[0].1 != w[1].0 * w[1].1) {
            return None;
        }
        Some(dims.last().map_or(0, |d| d.1))
    }

    /// The strides of single labels.
    fn strides(&self, group: &[u8]) -> Vec<usize> {
        group.iter().map(|l| self.view.strides[self.labels.iter().position(|k| k == l).expect("as above")]).collect()
    }

    /// The operand with its dimensions in another order of labels.
    fn ordered(&self, labels: &[u8]) -> Operand {
        let perm: Vec<usize> =
            labels.iter().map(|l| self.labels.iter().position(|k| k == l).expect("as above")).collect();
        Operand { view: self.view.permute(&perm), labels: labels.to_vec() }
    }
}

pub fn lower(op: &Einsum, cx: &mut Lower) {
    if let Some(found) = filters(cx.graph, &cx.graph.nodes[cx.node as usize]) {
        return filtered(found, cx);
    }
    let operands: Vec<Operand> = op
        .operands
        .iter()
        .enumerate()
        .map(|(i, labels)| diagonal(Operand { view: cx.view(i), labels: labels.clone() }))
        .collect();
    match operands.as_slice() {
        [a, b] => product(a.clone(), b.clone(), &op.output, cx),
        _ => single(&operands[0], &op.output, cx),
    }
}

/// A table of filters: only their bands are read.
fn filtered(found: Filters, cx: &mut Lower) {
    let Filters { x, summed, table, .. } = found;
    // Neighbours behind the summed dimension are to be neighbours in memory, and entries one dimension.
    let mut view = cx.view(x);
    let labels: Vec<u8> = (0..view.sizes.len() as u8).collect();
    let (entries, columns) = (&labels[..summed], &labels[summed + 1..]);
    let stride = |view: &View, group: &[u8]| Operand { view: view.clone(), labels: labels.clone() }.stride(group);
    let single = view.sizes[summed + 1..].iter().all(|n| *n == 1);
    let near = |view: &View| stride(view, columns).is_some_and(|s| s == 1 || single) && stride(view, entries).is_some();
    if !near(&view) {
        let packed = cx.packed(&view);
        view = View::whole(packed.slot, &view.sizes, DType::F32);
    }
    let batch = Batch {
        count: view.sizes[..summed].iter().product(),
        columns: view.sizes[summed + 1..].iter().product(),
        entry: stride(&view, entries).unwrap_or(0),
        row: view.strides[summed],
    };
    let from = Piece { slot: view.slot, offset: view.offset, len: if view.count() == 0 { 0 } else { view.reach() } };
    cx.reads(view.slot);
    let to = cx.output(0);
    cx.task(move |m| bands(m.pool(), &table, batch, &m.f32(from), &mut m.f32_mut(to)));
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
fn single(x: &Operand, output: &[u8], cx: &mut Lower) {
    let summed: Vec<u8> = x.labels.iter().copied().filter(|l| !output.contains(l)).collect();
    let order: Vec<u8> = output.iter().chain(&summed).copied().collect();
    let view = x.ordered(&order).view;
    let n: usize = view.sizes[output.len()..].iter().product();
    let from = cx.packed(&view);
    let to = cx.output(0);
    cx.task(move |m| diagonal_sum(m.pool(), n, &m.f32(from), &mut m.f32_mut(to)));
}

fn product(mut a: Operand, mut b: Operand, output: &[u8], cx: &mut Lower) {
    let in_a = |l: &u8| a.labels.contains(l);
    let in_b = |l: &u8| b.labels.contains(l);
    let batch: Vec<u8> = output.iter().copied().filter(|l| in_a(l) && in_b(l)).collect();
    let mut rows: Vec<u8> = output.iter().copied().filter(|l| in_a(l) && !in_b(l)).collect();
    let mut columns: Vec<u8> = output.iter().copied().filter(|l| !in_a(l) && in_b(l)).collect();
    // Labels of one operand alone that are not in the result are summed there first.
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    for (x, other) in [(&mut a, in_b), (&mut b, in_a)] {
        if x.labels.iter().any(|l| !other.contains(l) && !output.contains(l)) {
            let keep: Vec<u8> = x.labels.iter().copied().filter(|l| other.contains(l) || output.contains(l)).collect();
            *x = summed(x, &keep, cx);
        }
    }
    // Weights that are rounded are the right side; the result is the same.
    if cx.may_round(a.view.slot) && !cx.may_round(b.view.slot) {
        (a, b, rows, columns) = (b, a, columns, rows);
    }
    // The inner labels in the order in which the larger operand has them.
    let lead = if a.view.count() >= b.view.count() { &a } else { &b };
    let inner: Vec<u8> = lead.labels.iter().copied().filter(|l| !output.contains(l)).collect();
    let size = |x: &Operand, group: &[u8]| -> usize {
        group.iter().map(|l| x.view.sizes[x.labels.iter().position(|k| k == l).expect("as above")]).product()
    };
    let (m, n, k) = (size(&a, &rows), size(&b, &columns), size(&a, &inner));
    let batch_sizes: Vec<usize> = batch.iter().map(|l| size(&a, &[*l])).collect();

    let out_sizes = cx.output_sizes(0).to_vec();
    let out = Operand {
        view: View { slot: 0, offset: 0, strides: contiguous(&out_sizes), sizes: out_sizes, dtype: DType::F32 },
        labels: output.to_vec(),
    };
    // The result's rows and columns, written in place where each is one dimension.
    let direct = out.stride(&rows).zip(out.stride(&columns)).filter(|(r, c)| {
        let nested = m <= 1 || n <= 1 || *r > (n - 1) * c || *c > (m - 1) * r;
        nested && (m <= 1 || *r > 0) && (n <= 1 || *c > 0)
    });
    if direct.is_none() {
        // Any order will do for the scratch result: that of the operands.
        rows = a.labels.iter().copied().filter(|l| rows.contains(l)).collect();
        columns = b.labels.iter().copied().filter(|l| columns.contains(l)).collect();
    }
    let (a, sa) = matrix(a, &batch, &rows, &inner, cx);
    let (b, sb) = matrix(b, &batch, &inner, &columns, cx);
    let (a_batch, b_batch) = (a.strides(&batch), b.strides(&batch));
    let span = |x: &Operand| Piece {
        slot: x.view.slot,
        offset: x.view.offset,
        len: if x.view.count() == 0 {
            0
        } else {
            x.view.sizes.iter().zip(&x.view.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1
        },
    };
    let (pa, pb) = (span(&a), span(&b));
    let (pc, sc, c_batch, after) = match direct {
        Some((r, c)) => (cx.output(0), Matrix { row: r, col: c }, out.strides(&batch), None),
        None => {
            let order: Vec<u8> = batch.iter().chain(&rows).chain(&columns).copied().collect();
            let ordered = out.ordered(&order);
            let scratch = cx.scratch(ordered.view.count());
            let strides = contiguous(&ordered.view.sizes);
            // The scratch result in the output's order of dimensions.
            let perm: Vec<usize> =
                output.iter().map(|l| order.iter().position(|k| k == l).expect("the same labels")).collect();
            let view = View::whole(scratch.slot, &ordered.view.sizes, DType::F32).permute(&perm);
            let c_batch = strides[..batch.len()].to_vec();
            (scratch, Matrix { row: n, col: 1 }, c_batch, Some(view))
        }
    };
    let weight = if batch.is_empty() { cx.weight(pb, (m, n, k), sb) } else { None };
    cx.reads(pa.slot);
    let pb = cx.right(pb, weight.as_deref());
    let alike = cx.alike;
    let plan = Batched { sizes: batch_sizes, a: a_batch, b: b_batch, c: c_batch, alike };
    if let (Some(weight), true) = (weight, pc.len > 0) {
        let scratch = cx.scratch(gemm::scratch_len(m, k, [n], true) + weight.scratch(m));
        cx.task(move |mem| {
            let (ready, a, b, mut c) = (weight.lock(), mem.f32(pa), mem.f32(pb), mem.f32_mut(pc));
            let (left, right) = ([Left { k, data: &a, at: sa }], [ready.right(&b)]);
            let mut results = [Columns::new(n, &right, &mut c, sc)];
            let x = &mut Product { m, left: &left, right: &mut results, accumulate: false, alike, after: None };
            gemm::product(mem.pool(), x, &mut mem.f32_mut(scratch));
        });
    } else if pc.len > 0 {
        let scratch = cx.scratch(plan.scratch((m, n, k), Pool::global().threads()));
        cx.task(move |mem| {
            batched_gemm(
                mem.pool(),
                &plan,
                (m, n, k),
                (&mem.f32(pa), sa),
                (&mem.f32(pb), sb),
                (&mut mem.f32_mut(pc), sc),
                &mut mem.f32_mut(scratch),
            );
        });
    }
    if let Some(view) = after {
        let to = cx.output(0);
        cx.copy_view(&view, to);
    }
}

/// The operand summed over the labels that are not kept.
fn summed(x: &Operand, keep: &[u8], cx: &mut Lower) -> Operand {
    let rest: Vec<u8> = x.labels.iter().copied().filter(|l| !keep.contains(l)).collect();
    let order: Vec<u8> = keep.iter().chain(&rest).copied().collect();
    let view = x.ordered(&order).view;
    let n: usize = view.sizes[keep.len()..].iter().product();
    let sizes = view.sizes[..keep.len()].to_vec();
    let from = cx.packed(&view);
    let to = cx.scratch(sizes.iter().product());
    cx.task(move |m| diagonal_sum(m.pool(), n, &m.f32(from), &mut m.f32_mut(to)));
    Operand { view: View::whole(to.slot, &sizes, DType::F32), labels: keep.to_vec() }
}

/// The operand as matrices with the two groups as rows and columns; copied where it must be.
fn matrix(x: Operand, batch: &[u8], rows: &[u8], columns: &[u8], cx: &mut Lower) -> (Operand, Matrix) {
    if let (Some(row), Some(col)) = (x.stride(rows), x.stride(columns)) {
        return (x, Matrix { row, col });
    }
    let order: Vec<u8> = batch.iter().chain(rows).chain(columns).copied().collect();
    let ordered = x.ordered(&order);
    let piece = cx.packed(&ordered.view);
    let packed = Operand { view: View::whole(piece.slot, &ordered.view.sizes, DType::F32), labels: order };
    let row = packed.stride(rows).expect("a packed group is one dimension");
    let col = packed.stride(columns).expect("a packed group is one dimension");
    (packed, Matrix { row, col })
}
