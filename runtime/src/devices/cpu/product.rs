//! Joined matrix products on the CPU: one call of the kernel, whatever their number.

use super::lower::Lower;
use super::view::View;
use crate::ops::product::{Axes, LEFTS, Product, RESULTS};
use mobilis_kernels::cpu::gemm::{self, Columns, Left, Matrix, Right};
use mobilis_kernels::memory::Piece;

/// An operand: where it is, its strides, its rows and columns.
#[derive(Clone, Copy)]
struct Operand {
    piece: Piece,
    at: Matrix,
    columns: usize,
}

/// The distance between neighbours of a group of dimensions, where they are one.
fn stride(view: &View, axes: &[usize]) -> Option<usize> {
    let dims: Vec<(usize, usize)> =
        axes.iter().map(|a| (view.sizes[*a], view.strides[*a])).filter(|d| d.0 != 1).collect();
    let one = dims.windows(2).all(|w| w[0].1 == w[1].0 * w[1].1);
    one.then(|| dims.last().map_or(0, |d| d.1))
}

/// An operand as a matrix, copied where its dimensions do not follow each other.
fn operand(input: usize, axes: &Axes, cx: &mut Lower) -> Operand {
    let view = cx.view(input);
    let columns = axes.columns.iter().map(|a| view.sizes[*a]).product();
    if let (Some(row), Some(col)) = (stride(&view, &axes.rows), stride(&view, &axes.columns)) {
        let len = if view.count() == 0 { 0 } else { view.reach() };
        let piece = Piece { slot: view.slot, offset: view.offset, len };
        return Operand { piece, at: Matrix { row, col }, columns };
    }
    let perm: Vec<usize> = axes.rows.iter().chain(&axes.columns).copied().collect();
    let piece = cx.packed(&view.permute(&perm));
    Operand { piece, at: Matrix::rows(columns), columns }
}

pub fn lower(op: &Product, cx: &mut Lower) {
    let (lefts, results) = (op.left.len(), op.right.len());
    let left: Vec<Operand> = op.left.iter().enumerate().map(|(i, axes)| operand(i, axes, cx)).collect();
    let mut right: Vec<Operand> = vec![];
    for (j, terms) in op.right.iter().enumerate() {
        for (i, axes) in terms.iter().enumerate() {
            right.push(operand(op.right_input(j, i), axes, cx));
        }
    }
    let m: usize = op.left[0].rows.iter().map(|a| cx.input_sizes(0)[*a]).product();
    let out: Vec<Piece> = (0..results).map(|j| cx.output(j)).collect();
    let width = |j: usize| right[j * lefts].columns;
    let depth = left.iter().map(|l| l.columns).sum();
    let scratch = cx.scratch(gemm::scratch_len(m, depth, (0..results).map(width), true));
    let nothing = Operand { piece: Piece { slot: 0, offset: 0, len: 0 }, at: Matrix::rows(0), columns: 0 };
    let at = |x: &[Operand], i: usize| x.get(i).copied().unwrap_or(nothing);
    let left: [Operand; LEFTS] = std::array::from_fn(|i| at(&left, i));
    let right: [Operand; LEFTS * RESULTS] = std::array::from_fn(|i| at(&right, i));
    if m == 0 {
        return;
    }
    cx.task(move |mem| {
        let a: [_; LEFTS] = std::array::from_fn(|i| (i < lefts).then(|| mem.f32(left[i].piece)));
        let b: [_; LEFTS * RESULTS] = std::array::from_fn(|i| (i < lefts * results).then(|| mem.f32(right[i].piece)));
        let mut c: [_; RESULTS] = std::array::from_fn(|j| out.get(j).map(|p| mem.f32_mut(*p)));
        let a: [Left; LEFTS] =
            std::array::from_fn(|i| Left { k: left[i].columns, data: a[i].as_deref().unwrap_or(&[]), at: left[i].at });
        let b: [Right; LEFTS * RESULTS] =
            std::array::from_fn(|i| Right::Plain(b[i].as_deref().unwrap_or(&[]), right[i].at));
        let mut number = 0;
        let mut columns = c.each_mut().map(|c| {
            let j = number;
            number += 1;
            let (terms, c) = match c {
                Some(c) => (&b[j * lefts..(j + 1) * lefts], &mut c[..]),
                None => (&b[..0], &mut [][..]),
            };
            let n = right[(j * lefts).min(LEFTS * RESULTS - 1)].columns;
            Columns::new(n, terms, c, Matrix::rows(n))
        });
        let right = &mut columns[..results];
        let x = &mut gemm::Product { m, left: &a[..lefts], right, accumulate: false, after: None };
        gemm::product(mem.pool(), x, &mut mem.f32_mut(scratch));
    });
}
