//! Joined products of matrices on GPUs: for each result one product a left side, each adding to the one before,
//! and then the chain that follows: as a part of the last product (`epilogue.rs`), or in place.

use super::chain::emit;
use super::contraction::{multiply, stride};
use super::epilogue;
use super::lower::{Lower, Lowering, Refused};
use super::narrow::packed;
use crate::devices::lower::Emit;
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::contraction::Einsum;
use crate::ops::product::{Axes, Product};
use mobilis_cuda::Ptr;
use mobilis_cuda::gemm::{Element, Gemm, Matrix};

/// An operand: its matrix, its rows and columns.
struct Operand {
    at: Matrix,
    rows: usize,
    columns: usize,
    /// The scales of blocks; null for others.
    planes: Ptr,
}

/// A right side that is a variable as the model stores it, where products read it so.
fn stored(input: usize, axes: &Axes, cx: &mut Lower) -> Option<Operand> {
    let found = cx.stored(input)?;
    let count = |axes: &[usize]| axes.iter().map(|a| found.view.sizes[*a]).product();
    let (rows, columns): (usize, usize) = (count(&axes.rows), count(&axes.columns));
    let (row, col) = (stride(&found.view, &axes.rows)?, stride(&found.view, &axes.columns)?);
    // Blocks lie along the sum.
    let fits = !found.element.planes() || (row == 1 && col == rows && rows.is_multiple_of(32));
    if !fits {
        return None;
    }
    cx.reads_stored(&found);
    let at = Matrix { at: found.at, element: found.element, row, col, ..Matrix::default() };
    Some(Operand { at, rows, columns, planes: found.planes })
}

/// An operand as a matrix, copied where its dimensions do not follow each other.
fn operand(input: usize, axes: &Axes, cx: &mut Lower) -> Operand {
    let mut view = cx.as_stored(input);
    let count = |axes: &[usize]| axes.iter().map(|a| view.sizes[*a]).product();
    let (rows, columns) = (count(&axes.rows), count(&axes.columns));
    let (row, col) = match (stride(&view, &axes.rows), stride(&view, &axes.columns)) {
        (Some(row), Some(col)) => (row, col),
        _ => {
            let perm: Vec<usize> = axes.rows.iter().chain(&axes.columns).copied().collect();
            let wide = cx.wide(view);
            let piece = cx.pack(&wide.permute(&perm));
            view = View { offset: piece.offset, ..View::whole(piece.slot, &[rows, columns], DType::F32) };
            (columns, 1)
        }
    };
    let at = Matrix { at: cx.address(&view), element: cx.element(&view), row, col, ..Matrix::default() };
    Operand { at, rows, columns, planes: Ptr::NULL }
}

/// A contraction whose right side is a variable that products read as the model stores it; false for others.
pub fn stored_side(op: &Einsum, cx: &mut Lower) -> Result<bool, Refused> {
    let Some((product, [left, right])) = Product::of(op) else { return Ok(false) };
    let Some(b) = stored(right, &product.right[0][0], cx) else { return Ok(false) };
    let a = operand(left, &product.left[0], cx);
    let to = cx.output_planned(0, None);
    let c = Matrix::rows(cx.address(&to), b.columns).of(cx.element(&to));
    let mut g = Gemm::new([a.rows, b.columns, a.columns], a.at, b.at, c);
    g.planes = b.planes;
    multiply(&packed(&g, [left, right], cx)?, cx)?;
    Ok(true)
}

pub fn lower(op: &Product, cx: &mut Lower) -> Lowering {
    let left: Vec<Operand> = op.left.iter().enumerate().map(|(i, axes)| operand(i, axes, cx)).collect();
    for (j, terms) in op.right.iter().enumerate() {
        let side = |(i, axes): (usize, &Axes)| {
            let input = op.right_input(j, i);
            stored(input, axes, cx).unwrap_or_else(|| operand(input, axes, cx))
        };
        let right: Vec<Operand> = terms.iter().enumerate().map(side).collect();
        let (port, more) = op.ports(j);
        let kept = port.map(|port| cx.output_planned(port, None));
        let results: Vec<View> = more.map(|port| cx.output_planned(port, None)).collect();
        let sizes = results.first().map(|v| v.sizes.clone());
        let after = op.after[j].as_ref().zip(sizes.as_ref());
        let ending = after.and_then(|(after, sizes)| epilogue::of(after, op.left[0].rows.len(), sizes, cx));
        // Sums that others are added to are whole until then.
        let whole = |v: &View| cx.element(v) == Element::F32;
        let ending = ending.filter(|_| left.len() == 1 || results.iter().all(whole));
        // A product that is not wanted itself passes through the chain's first real result.
        let real = || results.iter().find(|v| v.dtype == DType::F32 && (ending.is_some() || whole(v))).cloned();
        let (rows, columns) = (left[0].rows, right[0].columns);
        let to = kept.or_else(real).unwrap_or_else(|| {
            let piece = cx.buffer(rows * columns, DType::F32);
            View::whole(piece.slot, &[rows, columns], DType::F32)
        });
        for (i, (a, b)) in left.iter().zip(&right).enumerate() {
            let c = Matrix::rows(cx.address(&to), columns).of(cx.element(&to));
            let mut g = Gemm::new([rows, columns, a.columns], a.at, b.at, c);
            g.planes = b.planes;
            if let Some(ending) = ending.filter(|_| i + 1 == left.len()) {
                g.epilogue = ending;
            }
            g.epilogue.beta = if i > 0 { 1.0 } else { 0.0 };
            multiply(&packed(&g, [i, op.right_input(j, i)], cx)?, cx)?;
        }
        if let Some((after, sizes)) = after.filter(|_| ending.is_none()) {
            let product = View { offset: to.offset, ..View::whole(to.slot, sizes, DType::F32) };
            let views: Vec<View> =
                after.inputs.iter().map(|i| i.map_or_else(|| product.clone(), |i| cx.as_stored(i))).collect();
            let numbers = after.chain.results.iter().copied();
            let outputs: Vec<_> = numbers.zip(results.iter().cloned()).collect();
            emit(&after.chain, &views, &outputs, sizes, cx)?;
        }
    }
    Ok(())
}
