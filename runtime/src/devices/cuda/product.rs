//! Joined products of matrices on GPUs: for each result one product a left side, each adding to the one before.

use super::contraction::{multiply, own, stride};
use super::lower::{Lower, Lowering};
use crate::devices::lower::Emit;
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::product::{Axes, Product};
use mobilis_cuda::gemm::{Gemm, Matrix};

/// An operand: its matrix, its rows and columns.
struct Operand {
    at: Matrix,
    rows: usize,
    columns: usize,
}

/// An operand as a matrix, copied where its dimensions do not follow each other.
fn operand(input: usize, axes: &Axes, cx: &mut Lower) -> Operand {
    let mut view = cx.view(input);
    let count = |axes: &[usize]| axes.iter().map(|a| view.sizes[*a]).product();
    let (rows, columns) = (count(&axes.rows), count(&axes.columns));
    let (row, col) = match (stride(&view, &axes.rows), stride(&view, &axes.columns)) {
        (Some(row), Some(col)) => (row, col),
        _ => {
            let perm: Vec<usize> = axes.rows.iter().chain(&axes.columns).copied().collect();
            let piece = cx.pack(&view.permute(&perm));
            view = View { offset: piece.offset, ..View::whole(piece.slot, &[rows, columns], DType::F32) };
            (columns, 1)
        }
    };
    Operand { at: Matrix { at: cx.address(&view), row, col, ..Matrix::default() }, rows, columns }
}

pub fn lower(op: &Product, cx: &mut Lower) -> Lowering {
    if op.after.iter().any(Option::is_some) {
        return Err("chains after products have no kernel yet".into());
    }
    let left: Vec<Operand> = op.left.iter().enumerate().map(|(i, axes)| operand(i, axes, cx)).collect();
    for (j, terms) in op.right.iter().enumerate() {
        let right: Vec<Operand> =
            terms.iter().enumerate().map(|(i, axes)| operand(op.right_input(j, i), axes, cx)).collect();
        let port = op.ports(j).0.ok_or("a result that goes nowhere")?;
        let to = own(port, cx);
        for (i, (a, b)) in left.iter().zip(&right).enumerate() {
            let c = Matrix::rows(cx.address(&to), b.columns);
            let mut g = Gemm::new([a.rows, b.columns, a.columns], a.at, b.at, c);
            g.epilogue.beta = if i > 0 { 1.0 } else { 0.0 };
            multiply(&g, cx)?;
        }
    }
    Ok(())
}
