//! Running sums, places of extremes and sorting on GPUs.

use super::along;
use super::lower::{Lower, Lowering};
use crate::devices::view::View;
use crate::graph::DType;
use crate::ops::scan::{ArgExtreme, CumSum};
use crate::ops::sort::Sort;
use mobilis_cuda::{scan, sort};

pub fn cumsum(op: &CumSum, cx: &mut Lower) -> Lowering {
    let along = along(cx.input_sizes(0), op.axis);
    let (x, y, multiprocessors) = (cx.input(0), cx.output(0), cx.info().multiprocessors);
    let space = cx.scratch(scan::workspace(along, multiprocessors));
    let real = cx.output_dtype(0) == DType::F32;
    cx.launch(scan::cumsum((x, y, space), along, op.reverse, real, multiprocessors)?);
    Ok(())
}

pub fn arg_extreme(op: &ArgExtreme, cx: &mut Lower) -> Lowering {
    let along = along(cx.input_sizes(0), op.axis);
    let (x, y, real) = (cx.input(0), cx.output(0), cx.input_dtype(0) == DType::F32);
    cx.launch(sort::arg_extreme(x, y, along, real, op.largest)?);
    Ok(())
}

/// Sorts along the last dimension: others are moved there by a view, and the results are views that move them
/// back.
pub fn sort(op: &Sort, cx: &mut Lower) -> Lowering {
    let rank = cx.input_sizes(0).len();
    let (n, first) = (cx.input_sizes(0)[op.axis], cx.output_sizes(0)[op.axis]);
    let last: Vec<usize> = (0..rank).filter(|d| *d != op.axis).chain([op.axis]).collect();
    let mut back = vec![0; rank];
    for (to, from) in last.iter().enumerate() {
        back[*from] = to;
    }
    let view = cx.view(0).permute(&last);
    let x = if view.is_contiguous() { cx.address(&view) } else { cx.packed(&view) };
    let dtype = view.dtype;
    let mut sizes = view.sizes;
    let rows = sizes[..rank - 1].iter().product();
    sizes[rank - 1] = first;
    let kernel = sort::Sort { rows, n, first, descending: op.descending, real: dtype == DType::F32 };
    let places = [(0, dtype), (1, DType::I32)].map(|(port, dtype)| {
        let piece = cx.buffer(rows * first, dtype);
        let whole = View::whole(piece.slot, &sizes, dtype);
        let at = cx.address(&whole);
        cx.output_as(port, whole.permute(&back));
        at
    });
    let space = cx.scratch(sort::workspace(kernel));
    cx.launch(sort::sort(kernel, x, places[0], places[1], space)?);
    Ok(())
}
