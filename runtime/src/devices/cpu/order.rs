//! Running sums, places of extremes and sorting on the CPU.

use super::lower::Lower;
use super::split_at;
use super::view::View;
use crate::graph::DType;
use crate::ops::scan::{ArgExtreme, CumSum};
use crate::ops::sort::Sort;
use mobilis_kernels::cpu::order as kernel;
use mobilis_kernels::memory::Piece;

pub fn cumsum(op: &CumSum, cx: &mut Lower) {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (x, y, reverse) = (cx.input(0), cx.output(0), op.reverse);
    match cx.output_dtype(0) {
        DType::F32 => cx.task(move |m| {
            let add = |a: f64, v: f32| a + f64::from(v);
            kernel::cumsum(m.pool(), (n, inner), reverse, &m.f32(x), &mut m.f32_mut(y), add, |a| a as f32);
        }),
        _ => cx.task(move |m| {
            kernel::cumsum(m.pool(), (n, inner), reverse, &m.i32(x), &mut m.i32_mut(y), i32::wrapping_add, |a| a);
        }),
    }
}

pub fn arg_extreme(op: &ArgExtreme, cx: &mut Lower) -> Result<(), String> {
    let (_, n, inner) = split_at(cx.input_sizes(0), op.axis);
    let (x, y, largest) = (cx.input(0), cx.output(0), op.largest);
    if n == 0 && y.len > 0 {
        return Err("looks for a place among no values".into());
    }
    match cx.input_dtype(0) {
        DType::F32 => cx.task(move |m| {
            let beats = if largest { kernel::larger } else { kernel::smaller };
            kernel::arg_extreme(m.pool(), (n, inner), &m.f32(x), &mut m.i32_mut(y), beats);
        }),
        _ => cx.task(move |m| {
            let beats = |a: i32, b: i32| if largest { a > b } else { a < b };
            kernel::arg_extreme(m.pool(), (n, inner), &m.i32(x), &mut m.i32_mut(y), beats);
        }),
    }
    Ok(())
}

/// Sorts along the last dimension: others are moved there by a view, and the results are views
/// that move them back.
pub fn sort(op: &Sort, cx: &mut Lower) -> Result<(), String> {
    let sizes = cx.input_sizes(0).to_vec();
    let rank = sizes.len();
    let (n, k) = (sizes[op.axis], cx.output_sizes(0)[op.axis]);
    if k > n {
        return Err(format!("takes the first {k} of {n} values"));
    }
    let last: Vec<usize> = (0..rank).filter(|d| *d != op.axis).chain([op.axis]).collect();
    let mut back = vec![0; rank];
    for (to, from) in last.iter().enumerate() {
        back[*from] = to;
    }
    let view = cx.view(0).permute(&last);
    let x = if view.is_contiguous() {
        Piece { slot: view.slot, offset: view.offset, len: view.count() }
    } else {
        cx.packed(&view)
    };
    let dtype = view.dtype;
    let places = cx.buffer(x.len, DType::I32);
    let mut out_sizes = view.sizes;
    out_sizes[rank - 1] = k;
    let count = out_sizes.iter().product();
    let values = cx.buffer(count, dtype);
    let positions = cx.buffer(count, DType::I32);
    for (port, piece, dtype) in [(0, values, dtype), (1, positions, DType::I32)] {
        let view = View::whole(piece.slot, &out_sizes, dtype).permute(&back);
        cx.output_as(port, view);
    }
    let descending = op.descending;
    match dtype {
        DType::F32 => cx.task(move |m| {
            let (x, mut p) = (m.f32(x), m.i32_mut(places));
            kernel::sort(m.pool(), (n, k), &x, &mut p, |a, b| kernel::real_order(a, b, descending));
            kernel::pick_sorted(m.pool(), (n, k), &x, &p, &mut m.f32_mut(values));
        }),
        _ => cx.task(move |m| {
            let (x, mut p) = (m.i32(x), m.i32_mut(places));
            kernel::sort(m.pool(), (n, k), &x, &mut p, |a, b| if descending { b.cmp(&a) } else { a.cmp(&b) });
            kernel::pick_sorted(m.pool(), (n, k), &x, &p, &mut m.i32_mut(values));
        }),
    }
    cx.task(move |m| {
        mobilis_kernels::cpu::place::cut(m.pool(), &m.i32(places), n, 0, &mut m.i32_mut(positions), k);
    });
    Ok(())
}
