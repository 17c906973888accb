//! Softmax and log-softmax of the middle of `[outer, n, inner]`.
//!
//! Rows (`inner` 1) are read once from memory while they fit the second-level cache. Where a large
//! result is streamed, exponentials are computed a second time rather than stored, read and
//! stored again: two of them cost less than the traffic. Columns are taken `WIDE` at a time, in
//! three passes over a block that a cache holds.

use super::math::{exp_flushed as exp, log};
use super::parts::Parts;
use super::reduce::largest;
use super::stream::{self, CHUNK, sum_each, write_each};
use crate::pool::Pool;

/// Rows up to this length are kept in a buffer while their sum is made.
const SHORT: usize = 2048;

#[inline(always)]
fn rows_body<const FUSED: bool>(ln: bool, n: usize, x: &[f32], y: &mut [f32], streams: bool) {
    let mut chunk = [0f32; CHUNK];
    let mut row = [0f32; SHORT];
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let max = largest(x);
        if max == f32::NEG_INFINITY {
            y.fill(if ln { max } else { 0.0 });
        } else if ln {
            let lse = max + log::<FUSED>(sum_each!([x], exp::<FUSED>(x - max)));
            write_each!(streams, &mut chunk, y, [x], x - lse);
        } else if streams && n > SHORT {
            let inverse = 1.0 / sum_each!([x], exp::<FUSED>(x - max));
            write_each!(true, &mut chunk, y, [x], exp::<FUSED>(x - max) * inverse);
        } else {
            let terms = if streams { &mut row[..n] } else { &mut *y };
            write_each!(false, &mut chunk, terms, [x], exp::<FUSED>(x - max));
            let terms = &*terms;
            let inverse = 1.0 / sum_each!([terms], terms);
            if streams {
                let terms = &row[..n];
                write_each!(true, &mut chunk, y, [terms], terms * inverse);
            } else {
                for y in y.iter_mut() {
                    *y *= inverse;
                }
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

/// Values that are worked on at once.
const LANES: usize = 16;
type Lanes = [f32; LANES];

/// The first values of a slice, and zeros.
#[inline(always)]
fn load(x: &[f32]) -> Lanes {
    match x.first_chunk() {
        Some(x) => *x,
        None => {
            let mut some = [0.0; LANES];
            some[..x.len()].copy_from_slice(x);
            some
        }
    }
}

/// As many values as a slice takes.
#[inline(always)]
fn store(x: &Lanes, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => *to = *x,
        None => to.copy_from_slice(&x[..to.len()]),
    }
}

#[inline(always)]
fn columns_body<const FUSED: bool>(ln: bool, at: Columns, x: &[f32], y: &Parts<f32>) {
    let mut max = [[f32::NEG_INFINITY; LANES]; WIDE / LANES];
    let mut total = [[0f32; LANES]; WIDE / LANES];
    let vectors = at.width.div_ceil(LANES);
    let limits = |v: usize| (v * LANES, ((v + 1) * LANES).min(at.width));
    for k in 0..at.n {
        for v in 0..vectors {
            let (from, to) = limits(v);
            let (x, max) = (load(&x[at.row(k) + from..at.row(k) + to]), &mut max[v]);
            for i in 0..LANES {
                max[i] = if x[i] > max[i] || x[i].is_nan() { x[i] } else { max[i] };
            }
        }
    }
    for k in 0..at.n {
        for v in 0..vectors {
            let (from, to) = limits(v);
            let (mut e, max, total) = (load(&x[at.row(k) + from..at.row(k) + to]), &max[v], &mut total[v]);
            for i in 0..LANES {
                e[i] = exp::<FUSED>(e[i] - max[i]);
                total[i] += e[i];
            }
            // SAFETY: tasks have columns of their own.
            store(&e, unsafe { y.get(at.row(k) + from, to - from) });
        }
    }
    for v in 0..vectors {
        for i in 0..LANES {
            let (max, total) = (max[v][i], &mut total[v][i]);
            *total = if ln { max + log::<FUSED>(*total) } else { 1.0 / *total };
        }
    }
    // Where nothing is finite, nothing has a part.
    let nothing = if ln { f32::NEG_INFINITY } else { 0.0 };
    for k in 0..at.n {
        for v in 0..vectors {
            let (from, to) = limits(v);
            // SAFETY: as above.
            let y = unsafe { y.get(at.row(k) + from, to - from) };
            let (max, total) = (&max[v], &total[v]);
            let mut value = if ln { load(&x[at.row(k) + from..at.row(k) + to]) } else { load(y) };
            for i in 0..LANES {
                let part = if ln { value[i] - total[i] } else { value[i] * total[i] };
                value[i] = if max[i] == f32::NEG_INFINITY { nothing } else { part };
            }
            store(&value, y);
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
    let mut chunk = [0f32; CHUNK];
    for ((y, g), gx) in y.chunks_exact(n).zip(g.chunks_exact(n)).zip(gx.chunks_exact_mut(n)) {
        if ln {
            let total = sum_each!([g], g);
            write_each!(streams, &mut chunk, gx, [y, g], g - exp::<FUSED>(y) * total);
        } else {
            let total = sum_each!([y, g], y * g);
            write_each!(streams, &mut chunk, gx, [y, g], y * (g - total));
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
    let mut total = [[0f32; LANES]; WIDE / LANES];
    let vectors = at.width.div_ceil(LANES);
    let range = |k: usize, v: usize| at.row(k) + v * LANES..at.row(k) + ((v + 1) * LANES).min(at.width);
    for k in 0..at.n {
        for v in 0..vectors {
            let (y, g, total) = (load(&y[range(k, v)]), load(&g[range(k, v)]), &mut total[v]);
            for i in 0..LANES {
                total[i] += if ln { g[i] } else { y[i] * g[i] };
            }
        }
    }
    for k in 0..at.n {
        for v in 0..vectors {
            let (y, mut g, total) = (load(&y[range(k, v)]), load(&g[range(k, v)]), &total[v]);
            if ln {
                for i in 0..LANES {
                    g[i] -= exp::<FUSED>(y[i]) * total[i];
                }
            } else {
                for i in 0..LANES {
                    g[i] = y[i] * (g[i] - total[i]);
                }
            }
            // SAFETY: tasks have columns of their own.
            store(&g, unsafe { gx.get(range(k, v).start, range(k, v).len()) });
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
