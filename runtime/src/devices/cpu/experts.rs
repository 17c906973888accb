//! Products with the matrices of chosen experts on the CPU: for each expert that was chosen, one
//! product of the rows that chose it.

use super::lower::Lower;
use super::weights::Weight;
use crate::graph::DType;
use crate::ops::experts::{Experts, ExpertsGrad};
use mobilis_kernels::cpu::experts as kernel;
use mobilis_kernels::cpu::gemm::{self, Columns, FEW_ROWS, Left, Matrix, Product, Right};
use mobilis_kernels::memory::Piece;
use std::sync::Arc;

/// Rows of values for choices: where they are, how wide, and how many choices read one.
#[derive(Clone, Copy)]
struct Rows {
    piece: Piece,
    width: usize,
    shared: usize,
}

impl Rows {
    fn of(i: usize, chosen: &[usize], cx: &mut Lower) -> Rows {
        let sizes = cx.input_sizes(i).to_vec();
        let shared = if sizes.len() == chosen.len() { chosen[chosen.len() - 1] } else { 1 };
        Rows { piece: cx.input(i), width: sizes[sizes.len() - 1], shared }
    }
}

/// Scratch of a product of up to `most` rows.
fn scratch(most: usize, k: usize, n: usize) -> usize {
    let of = |m| gemm::scratch_len(m, k, [n], true);
    // Products of few columns are turned around, and then the rows are cut as columns are.
    if n <= FEW_ROWS { (1..=most).map(of).max().unwrap_or(0) } else { of(most) }
}

/// An expert's matrix, for products of about `m` rows: where it is, and what is prepared of it.
fn matrix(i: usize, size: (usize, usize, usize), at: Matrix, cx: &mut Lower) -> (Piece, Option<Arc<Weight>>) {
    let view = cx.view(i);
    if !view.is_contiguous() {
        return (cx.input(i), None);
    }
    let piece = Piece { slot: view.slot, offset: view.offset, len: view.count() };
    let weight = cx.weight(piece, size, at);
    (cx.right(piece, weight.as_deref()), weight)
}

pub fn experts(op: &Experts, cx: &mut Lower) {
    let experts = cx.inputs() - 2;
    let chosen_sizes = cx.input_sizes(1).to_vec();
    let choices: usize = chosen_sizes.iter().product();
    let (o, i) = (cx.input_sizes(2)[0], cx.input_sizes(2)[1]);
    let (n, k, at) = match op.transposed {
        false => (o, i, Matrix { row: 1, col: i }),
        true => (i, o, Matrix { row: i, col: 1 }),
    };
    let x = Rows::of(0, &chosen_sizes, cx);
    let chosen = cx.input(1);
    // Which rows meet is not known before the run; what is prepared is chosen for their mean.
    let mean = choices.div_ceil(experts);
    let matrices: Vec<(Piece, Option<Arc<Weight>>)> =
        (2..2 + experts).map(|i| matrix(i, (mean, n, k), at, cx)).collect();
    let out = cx.output(0);
    let order = cx.buffer(kernel::route_len(choices, experts), DType::I32);
    let (from, to) = (cx.scratch(choices * k), cx.scratch(choices * n));
    let rounded = matrices.iter().flat_map(|m| &m.1).map(|w| w.scratch(choices)).max().unwrap_or(0);
    let packing = cx.scratch(scratch(choices, k, n) + rounded);
    if out.len == 0 {
        return;
    }
    let alike = cx.alike;
    cx.try_task(move |m| {
        let mut order = m.i32_mut(order);
        let (starts, order) = kernel::route(&m.i32(chosen), experts, &mut order)?;
        let (x_all, mut out) = (m.f32(x.piece), m.f32_mut(out));
        let (mut from, mut to, mut packing) = (m.f32_mut(from), m.f32_mut(to), m.f32_mut(packing));
        for e in 0..experts {
            let order = &order[starts[e] as usize..starts[e + 1] as usize];
            let rows = order.len();
            if rows == 0 {
                continue;
            }
            let (plain, ready) = (m.f32(matrices[e].0), matrices[e].1.as_deref().map(Weight::lock));
            let right = [ready.as_ref().map_or(Right::Plain(&plain, at), |ready| ready.right(&plain))];
            // A row alone is read and written where it is.
            let alone = rows == 1;
            let (data, c) = if alone {
                let place = order[0] as usize;
                (&x_all[place / x.shared * k..][..k], &mut out[place * n..][..n])
            } else {
                kernel::collect(m.pool(), &x_all, order, x.shared, k, &mut from[..rows * k]);
                (&from[..rows * k], &mut to[..rows * n])
            };
            let left = [Left { k, data, at: Matrix::rows(k) }];
            let mut results = [Columns::new(n, &right, c, Matrix::rows(n))];
            let x = &mut Product { m: rows, left: &left, right: &mut results, accumulate: false, alike, after: None };
            gemm::product(m.pool(), x, &mut packing);
            if !alone {
                kernel::spread(&to[..rows * n], order, n, &mut out);
            }
        }
        Ok(())
    });
}

pub fn grad(op: &ExpertsGrad, cx: &mut Lower) {
    let experts = op.experts;
    let chosen_sizes = cx.input_sizes(0).to_vec();
    let choices: usize = chosen_sizes.iter().product();
    let chosen = cx.input(0);
    let (a, b) = (Rows::of(1, &chosen_sizes, cx), Rows::of(2, &chosen_sizes, cx));
    let out: Vec<Piece> = (0..experts).map(|e| cx.output(e)).collect();
    let order = cx.buffer(kernel::route_len(choices, experts), DType::I32);
    let (left, right) = (cx.scratch(choices * a.width), cx.scratch(choices * b.width));
    // The depth of these products is the number of rows.
    let size = |k| gemm::gemm_scratch((a.width, b.width, k));
    let packing = cx.scratch((1..=choices.min(4096)).map(size).max().unwrap_or(0).max(size(choices)));
    cx.try_task(move |m| {
        let mut order = m.i32_mut(order);
        let (starts, order) = kernel::route(&m.i32(chosen), experts, &mut order)?;
        let (a_all, b_all) = (m.f32(a.piece), m.f32(b.piece));
        let (mut left, mut right, mut packing) = (m.f32_mut(left), m.f32_mut(right), m.f32_mut(packing));
        for e in 0..experts {
            let mut out = m.f32_mut(out[e]);
            let order = &order[starts[e] as usize..starts[e + 1] as usize];
            let rows = order.len();
            if rows == 0 || out.is_empty() {
                out.fill(0.0);
                continue;
            }
            let (left, right) = (&mut left[..rows * a.width], &mut right[..rows * b.width]);
            kernel::collect(m.pool(), &a_all, order, a.shared, a.width, left);
            kernel::collect(m.pool(), &b_all, order, b.shared, b.width, right);
            let (sa, sb) = (Matrix::rows(a.width).transposed(), Matrix::rows(b.width));
            let size = (a.width, b.width, rows);
            gemm::gemm(m.pool(), size, left, sa, right, sb, &mut out, Matrix::rows(b.width), false, &mut packing);
        }
        Ok(())
    });
}
