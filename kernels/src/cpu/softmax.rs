//! Softmax and log-softmax of the middle of `[outer, n, inner]`.
//!
//! Rows (`inner` 1) are read once from memory while they fit the second-level cache. Where a large
//! result is streamed, exponentials are computed a second time rather than stored, read and
//! stored again: two of them cost less than the traffic. Columns are taken [`WIDE`] at a time, in
//! three passes over a block that a cache holds.

use super::math::{exp, log};
use super::parts::Parts;
use super::reduce::largest;
use super::stream::{self, sum_each, write_each};
use crate::pool::Pool;

#[inline(always)]
fn rows_body<const FUSED: bool>(ln: bool, n: usize, x: &[f32], y: &mut [f32], streams: bool) {
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let max = largest(x);
        if max == f32::NEG_INFINITY {
            y.fill(if ln { max } else { 0.0 });
        } else if ln {
            let lse = max + log::<FUSED>(sum_each!([x], exp::<FUSED>(x - max)));
            write_each!(streams, y, [x], x - lse);
        } else if streams {
            let inverse = 1.0 / sum_each!([x], exp::<FUSED>(x - max));
            write_each!(true, y, [x], exp::<FUSED>(x - max) * inverse);
        } else {
            write_each!(false, y, [x], exp::<FUSED>(x - max));
            let terms = &*y;
            let inverse = 1.0 / sum_each!([terms], terms);
            for y in y.iter_mut() {
                *y *= inverse;
            }
        }
    }
    if streams {
        stream::fence();
    }
}
crate::dispatch! {
    fn rows(ln: bool, n: usize, x: &[f32], y: &mut [f32], streams: bool) = fused rows_body;
}

/// Columns at a time where the dimension is not the last.
const WIDE: usize = 64;

/// The columns `first..first + width` of one `[n, inner]` block of values.
#[derive(Clone, Copy)]
struct Columns {
    /// Where the block begins.
    start: usize,
    n: usize,
    inner: usize,
    first: usize,
    width: usize,
}

impl Columns {
    /// Where row `k` of the columns begins.
    #[inline(always)]
    fn row(&self, k: usize) -> usize {
        self.start + k * self.inner + self.first
    }
}

#[inline(always)]
fn columns_body<const FUSED: bool>(ln: bool, at: Columns, x: &[f32], y: &Parts<f32>) {
    let mut max = [f32::NEG_INFINITY; WIDE];
    let mut total = [0f32; WIDE];
    for k in 0..at.n {
        let x = &x[at.row(k)..][..at.width];
        for i in 0..at.width {
            max[i] = if x[i] > max[i] || x[i].is_nan() { x[i] } else { max[i] };
        }
    }
    for k in 0..at.n {
        // SAFETY: tasks have columns of their own.
        let (x, y) = (&x[at.row(k)..][..at.width], unsafe { y.get(at.row(k), at.width) });
        for i in 0..at.width {
            let e = exp::<FUSED>(x[i] - max[i]);
            total[i] += e;
            y[i] = e;
        }
    }
    for i in 0..WIDE {
        total[i] = if ln { max[i] + log::<FUSED>(total[i]) } else { 1.0 / total[i] };
    }
    for k in 0..at.n {
        // SAFETY: as above.
        let (x, y) = (&x[at.row(k)..][..at.width], unsafe { y.get(at.row(k), at.width) });
        for i in 0..at.width {
            let value = if ln { x[i] - total[i] } else { y[i] * total[i] };
            // Where nothing is finite, nothing has a part.
            let nothing = if ln { f32::NEG_INFINITY } else { 0.0 };
            y[i] = if max[i] == f32::NEG_INFINITY { nothing } else { value };
        }
    }
}
crate::dispatch! {
    fn columns(ln: bool, at: Columns, x: &[f32], y: &Parts<f32>) = fused columns_body;
}

/// Values that make a task worth starting.
const LEAST: usize = 4096;

/// Calls `f` for all columns of `len` values `[_, n, inner]`, shared among threads.
fn by_columns(pool: &Pool, (n, inner): (usize, usize), len: usize, f: &(dyn Fn(Columns) + Sync)) {
    let (across, outer) = (inner.div_ceil(WIDE), len / (n * inner));
    let each = LEAST.div_ceil(n * inner.min(WIDE));
    let tasks = outer * across;
    pool.run(tasks.div_ceil(each), &|t| {
        for task in t * each..((t + 1) * each).min(tasks) {
            let first = task % across * WIDE;
            let width = WIDE.min(inner - first);
            f(Columns { start: task / across * n * inner, n, inner, first, width });
        }
    });
}

/// Softmax, or its logarithm, along `n` of `x [outer, n, inner]`.
///
/// # Panics
/// When the slices differ in length.
pub fn softmax(pool: &Pool, ln: bool, (n, inner): (usize, usize), x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "a softmax's sizes");
    if n * inner == 0 {
        return;
    }
    if inner == 1 {
        let streams = stream::pays(4 * y.len());
        return pool.rows(y, n, (LEAST / n).max(1), |first, y| rows(ln, n, &x[first * n..][..y.len()], y, streams));
    }
    let len = y.len();
    let y = Parts::new(y);
    by_columns(pool, (n, inner), len, &|at| columns(ln, at, x, &y));
}

#[inline(always)]
fn grad_rows_body<const FUSED: bool>(ln: bool, n: usize, y: &[f32], g: &[f32], gx: &mut [f32], streams: bool) {
    for ((y, g), gx) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(gx.chunks_exact_mut(n)) {
        if ln {
            let total = sum_each!([g], g);
            write_each!(streams, gx, [y, g], g - exp::<FUSED>(y) * total);
        } else {
            let total = sum_each!([y, g], y * g);
            write_each!(streams, gx, [y, g], y * (g - total));
        }
    }
    if streams {
        stream::fence();
    }
}
crate::dispatch! {
    fn grad_rows(ln: bool, n: usize, y: &[f32], g: &[f32], gx: &mut [f32], streams: bool) = fused grad_rows_body;
}

#[inline(always)]
fn grad_columns_body<const FUSED: bool>(ln: bool, at: Columns, y: &[f32], g: &[f32], gx: &Parts<f32>) {
    let mut total = [0f32; WIDE];
    for k in 0..at.n {
        let (y, g) = (&y[at.row(k)..][..at.width], &g[at.row(k)..][..at.width]);
        for i in 0..at.width {
            total[i] += if ln { g[i] } else { y[i] * g[i] };
        }
    }
    for k in 0..at.n {
        let (y, g) = (&y[at.row(k)..][..at.width], &g[at.row(k)..][..at.width]);
        // SAFETY: tasks have columns of their own.
        let gx = unsafe { gx.get(at.row(k), at.width) };
        if ln {
            for i in 0..at.width {
                gx[i] = g[i] - exp::<FUSED>(y[i]) * total[i];
            }
        } else {
            for i in 0..at.width {
                gx[i] = y[i] * (g[i] - total[i]);
            }
        }
    }
}
crate::dispatch! {
    fn grad_columns(ln: bool, at: Columns, y: &[f32], g: &[f32], gx: &Parts<f32>) = fused grad_columns_body;
}

/// The gradient of [`softmax`] from its result `y` and the gradient `g` by it.
///
/// # Panics
/// When the slices differ in length.
pub fn softmax_grad(pool: &Pool, ln: bool, (n, inner): (usize, usize), y: &[f32], g: &[f32], gx: &mut [f32]) {
    assert!(y.len() == gx.len() && g.len() == gx.len(), "a softmax's sizes");
    if n * inner == 0 {
        return;
    }
    if inner == 1 {
        let streams = stream::pays(4 * gx.len());
        return pool.rows(gx, n, (LEAST / n).max(1), |first, gx| {
            let range = first * n..first * n + gx.len();
            grad_rows(ln, n, &y[range.clone()], &g[range], gx, streams);
        });
    }
    let len = gx.len();
    let gx = Parts::new(gx);
    by_columns(pool, (n, inner), len, &|at| grad_columns(ln, at, y, g, &gx));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            s as f32 / u32::MAX as f32 * 8.0 - 4.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn rows_and_columns_and_their_gradients() {
        for (outer, n, inner) in [(3, 7, 1), (2, 1000, 1), (5, 1, 1), (1, 9, 70), (3, 33, 5), (2, 4, 128), (0, 4, 3)] {
            let len = outer * n * inner;
            let (x, g) = (noise(len, 1), noise(len, 2));
            for ln in [false, true] {
                let mut results = vec![];
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    let (mut y, mut gx) = (vec![9.0; len], vec![9.0; len]);
                    softmax(&pool, ln, (n, inner), &x, &mut y);
                    softmax_grad(&pool, ln, (n, inner), &y, &g, &mut gx);
                    results.push((y, gx));
                }
                assert!(results[0] == results[1], "threads change nothing");
                let (y, gx) = &results[0];
                for c in 0..outer * inner {
                    let at = |k: usize| (c / inner * n + k) * inner + c % inner;
                    let total: f64 = (0..n).map(|k| f64::from(x[at(k)]).exp()).sum();
                    let p: Vec<f64> = (0..n).map(|k| f64::from(x[at(k)]).exp() / total).collect();
                    let dot: f64 = (0..n).map(|k| if ln { 1.0 } else { p[k] } * f64::from(g[at(k)])).sum();
                    for (k, p) in p.iter().enumerate() {
                        let (value, g) = (if ln { p.ln() } else { *p }, f64::from(g[at(k)]));
                        let slope = if ln { g - p * dot } else { p * (g - dot) };
                        assert!((f64::from(y[at(k)]) - value).abs() < 2e-6 * value.abs().max(1.0));
                        assert!((f64::from(gx[at(k)]) - slope).abs() < 2e-5 * slope.abs().max(1.0));
                    }
                }
            }
        }
    }

    #[test]
    fn streamed_rows_are_the_same() {
        let x = noise(3 * 1500, 3);
        for ln in [false, true] {
            let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            rows(ln, 1500, &x, &mut a, false);
            rows(ln, 1500, &x, &mut b, true);
            assert_eq!(a, b);
            let (mut c, mut d) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            grad_rows(ln, 1500, &a, &x, &mut c, false);
            grad_rows(ln, 1500, &a, &x, &mut d, true);
            assert_eq!(c, d);
        }
    }

    #[test]
    fn infinities_and_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [-inf, -inf, 0.0, -inf, nan, 1.0, inf, 1.0];
        // Rows of two, and columns of two.
        for (inner, x) in [(1, x), (4, [-inf, 0.0, nan, inf, -inf, -inf, 1.0, 1.0])] {
            let mut y = [9.0; 8];
            softmax(&Pool::new(1), false, (2, inner), &x, &mut y);
            let at = |row: usize, k: usize| if inner == 1 { y[2 * row + k] } else { y[4 * k + row] };
            assert_eq!((at(0, 0), at(0, 1), at(1, 0), at(1, 1)), (0.0, 0.0, 1.0, 0.0));
            assert!(at(2, 0).is_nan() && at(2, 1).is_nan() && at(3, 0).is_nan());
        }
    }
}
