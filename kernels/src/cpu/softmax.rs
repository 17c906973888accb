//! Softmax and log-softmax of the middle of `[outer, n, inner]`.

use super::math::plain::exp;
use super::reduce::{largest, sum};
use crate::pool::Pool;

#[inline(always)]
fn row_body(log: bool, x: &[f32], y: &mut [f32]) {
    let max = largest(x);
    if max == f32::NEG_INFINITY {
        y.fill(if log { max } else { 0.0 });
        return;
    }
    y.iter_mut().zip(x).for_each(|(y, x)| *y = exp(*x - max));
    let total = sum(y);
    if log {
        let lse = max + total.ln();
        y.iter_mut().zip(x).for_each(|(y, x)| *y = *x - lse);
    } else {
        let inverse = 1.0 / total;
        y.iter_mut().for_each(|y| *y *= inverse);
    }
}
crate::dispatch! {
    fn one_row(log: bool, x: &[f32], y: &mut [f32]) = row_body;
}

/// Columns at a time where the dimension is not the last.
const WIDE: usize = 64;

/// `n` rows of `inner` values: softmax down the columns from `first` to `first + width`.
#[inline(always)]
fn columns_body(log: bool, x: &[f32], inner: usize, first: usize, width: usize, y: &mut [f32]) {
    let mut max = [f32::NEG_INFINITY; WIDE];
    let mut total = [0f32; WIDE];
    for x in x.chunks_exact(inner) {
        for (m, x) in max.iter_mut().zip(&x[first..first + width]) {
            *m = if *x > *m || x.is_nan() { *x } else { *m };
        }
    }
    for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
        for i in 0..width {
            let e = exp(x[first + i] - max[i]);
            total[i] += e;
            y[first + i] = e;
        }
    }
    for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
        for i in 0..width {
            y[first + i] = match (max[i] == f32::NEG_INFINITY, log) {
                (true, true) => f32::NEG_INFINITY,
                (true, false) => 0.0,
                (false, true) => x[first + i] - max[i] - total[i].ln(),
                (false, false) => y[first + i] / total[i],
            };
        }
    }
}
crate::dispatch! {
    fn columns(log: bool, x: &[f32], inner: usize, first: usize, width: usize, y: &mut [f32]) = columns_body;
}

/// Rows that make a block worth starting.
fn least(row: usize) -> usize {
    (4096 / row.max(1)).max(1)
}

/// Softmax, or its logarithm, along `n` of `x [outer, n, inner]`.
pub fn softmax(pool: &Pool, log: bool, (n, inner): (usize, usize), x: &[f32], y: &mut [f32]) {
    let size = n * inner;
    if size == 0 {
        return;
    }
    pool.rows(y, size, least(size), |first, block| {
        for (x, y) in x[first * size..].chunks_exact(size).zip(block.chunks_exact_mut(size)) {
            if inner == 1 {
                one_row(log, x, y);
                continue;
            }
            for from in (0..inner).step_by(WIDE) {
                columns(log, x, inner, from, WIDE.min(inner - from), y);
            }
        }
    });
}

#[inline(always)]
fn grad_body(log: bool, inner: usize, y: &[f32], g: &[f32], gx: &mut [f32]) {
    for i in 0..inner {
        let column = |x: &[f32]| -> f32 {
            // The sum that both rules need.
            let terms = x.iter().skip(i).step_by(inner);
            terms.sum()
        };
        if log {
            let total = if inner == 1 { sum(g) } else { column(g) };
            for p in (i..y.len()).step_by(inner) {
                gx[p] = g[p] - exp(y[p]) * total;
            }
        } else {
            for p in (i..y.len()).step_by(inner) {
                gx[p] = g[p] * y[p];
            }
            let total = if inner == 1 { sum(gx) } else { column(gx) };
            for p in (i..y.len()).step_by(inner) {
                gx[p] -= y[p] * total;
            }
        }
    }
}
crate::dispatch! {
    fn grad_block(log: bool, inner: usize, y: &[f32], g: &[f32], gx: &mut [f32]) = grad_body;
}

/// The gradient of [`softmax`] from its result `y` and the gradient `g` by it.
pub fn softmax_grad(pool: &Pool, log: bool, (n, inner): (usize, usize), y: &[f32], g: &[f32], gx: &mut [f32]) {
    let size = n * inner;
    if size == 0 {
        return;
    }
    pool.rows(gx, size, least(size), |first, block| {
        let from = first * size..;
        let rows = y[from.clone()].chunks_exact(size).zip(g[from].chunks_exact(size));
        for ((y, g), gx) in rows.zip(block.chunks_exact_mut(size)) {
            grad_block(log, inner, y, g, gx);
        }
    });
}
