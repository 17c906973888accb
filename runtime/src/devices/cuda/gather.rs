//! Picking and adding by indices on GPUs; embedding is picking rows of a table.

use super::lower::{Lower, Lowering};
use super::slice::in_place;
use crate::ops::gather::{Gather, ScatterAdd, Take, TakeAdd};
use mobilis_cuda::gather::Picks;

/// Along dimension `axis` of the first input, of so many indices.
fn picks(cx: &mut Lower, axis: usize, picks: usize) -> Picks {
    let along = super::along(cx.input_sizes(0), axis);
    Picks { outer: along.outer, n: along.n, inner: along.inner, picks, table: false, status: cx.status() }
}

pub fn take(op: &Take, cx: &mut Lower) -> Lowering {
    let many = cx.input_sizes(1)[0];
    let kernel = picks(cx, op.axis, many);
    let (x, ids, y, bytes) = (cx.input(0), cx.input(1), cx.output(0), cx.output_dtype(0).bytes());
    cx.launch(kernel.take(x, ids, y, bytes)?);
    Ok(())
}

pub fn gather(op: &Gather, cx: &mut Lower) -> Lowering {
    let many = cx.input_sizes(1)[op.axis];
    let kernel = picks(cx, op.axis, many);
    let (x, ids, y, bytes) = (cx.input(0), cx.input(1), cx.output(0), cx.output_dtype(0).bytes());
    cx.launch(kernel.gather(x, ids, y, bytes)?);
    Ok(())
}

pub fn take_add(op: &TakeAdd, cx: &mut Lower) -> Lowering {
    let many = cx.input_sizes(1)[0];
    let kernel = picks(cx, op.axis, many);
    let ids = cx.input(1);
    let (y, source) = in_place(cx, 2);
    let workspace = cx.scratch(kernel.workspace());
    cx.launch(kernel.take_add(ids, source, y, workspace)?);
    Ok(())
}

pub fn scatter_add(op: &ScatterAdd, cx: &mut Lower) -> Lowering {
    let many = cx.input_sizes(1)[op.axis];
    let kernel = picks(cx, op.axis, many);
    let ids = cx.input(1);
    let (y, source) = in_place(cx, 2);
    let workspace = cx.scratch(if kernel.outer * kernel.inner == 1 { kernel.workspace() } else { 0 });
    cx.launch(kernel.scatter_add(ids, source, y, workspace)?);
    Ok(())
}

pub fn embedding(cx: &mut Lower) -> Lowering {
    let (rows, width) = (cx.input_sizes(0)[0], cx.input_sizes(0)[1]);
    let kernel = of_rows(cx, rows, width, 1);
    let (table, ids, y) = (cx.input(0), cx.input(1), cx.output(0));
    cx.launch(kernel.take(table, ids, y, 4)?);
    Ok(())
}

pub fn embedding_grad(cx: &mut Lower) -> Lowering {
    let (rows, width) = (cx.output_sizes(0)[0], cx.output_sizes(0)[1]);
    let kernel = of_rows(cx, rows, width, 0);
    let (ids, g, y) = (cx.input(0), cx.input(1), cx.output(0));
    let workspace = cx.scratch(kernel.workspace());
    cx.fill(y, 0, rows * width * 4);
    cx.launch(kernel.take_add(ids, g, y, workspace)?);
    Ok(())
}

/// Rows of a table, by the indices that are an input.
fn of_rows(cx: &mut Lower, n: usize, inner: usize, ids: usize) -> Picks {
    let picks = cx.input_sizes(ids).iter().product();
    Picks { outer: 1, n, inner, picks, table: true, status: cx.status() }
}
