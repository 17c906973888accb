//! Reductions of the middle of `[outer, n, inner]`.

use super::math;
use crate::pool::Pool;

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// The sum; 0 over nothing.
    Sum,
    /// The largest; minus infinity (or the smallest number) over nothing. NaN wins.
    Max,
    /// The smallest; infinity (or the largest number) over nothing. NaN wins.
    Min,
}

/// A sum in eight lanes of blocks, so that rounding errors grow with the logarithm.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    if x.len() > 512 {
        let (a, b) = x.split_at(x.len() / 2 / 16 * 16);
        return sum(a) + sum(b);
    }
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().sum();
    for c in chunks {
        for i in 0..16 {
            lanes[i] += c[i];
        }
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// The largest value; NaN wins.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, v| max(m, *v));
    for c in chunks {
        for i in 0..16 {
            lanes[i] = max(lanes[i], c[i]);
        }
    }
    lanes.iter().fold(rest, |m, v| max(m, *v))
}

#[inline(always)]
fn rows_body(kind: Reduction, x: &[f32], n: usize, y: &mut [f32]) {
    for (row, y) in x.chunks_exact(n).zip(y) {
        *y = match kind {
            Reduction::Sum => sum(row),
            Reduction::Max => largest(row),
            Reduction::Min => row.iter().fold(f32::INFINITY, |m, v| min(m, *v)),
        };
    }
}
crate::dispatch! {
    fn rows(kind: Reduction, x: &[f32], n: usize, y: &mut [f32]) = rows_body;
}

#[inline(always)]
fn columns_body(kind: Reduction, x: &[f32], inner: usize, first: usize, y: &mut [f32], partial: bool) {
    if !partial {
        y.fill(match kind {
            Reduction::Sum => 0.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
        });
    }
    for row in x.chunks_exact(inner) {
        let row = &row[first..first + y.len()];
        match kind {
            Reduction::Sum => y.iter_mut().zip(row).for_each(|(y, v)| *y += v),
            Reduction::Max => y.iter_mut().zip(row).for_each(|(y, v)| *y = max(*y, *v)),
            Reduction::Min => y.iter_mut().zip(row).for_each(|(y, v)| *y = min(*y, *v)),
        }
    }
}
crate::dispatch! {
    fn columns(kind: Reduction, x: &[f32], inner: usize, first: usize, y: &mut [f32], partial: bool) = columns_body;
}

/// Adds the sums of halves, so that long columns keep their precision.
fn column_sums(x: &[f32], inner: usize, first: usize, y: &mut [f32]) {
    const ROWS: usize = 128;
    const WIDTH: usize = 256;
    if x.len() <= ROWS * inner {
        return columns(Reduction::Sum, x, inner, first, y, false);
    }
    // Blocks of rows are summed apart and then joined.
    for (i, y) in y.chunks_mut(WIDTH).enumerate() {
        let mut part = [0f32; WIDTH];
        y.fill(0.0);
        for block in x.chunks(ROWS * inner) {
            let part = &mut part[..y.len()];
            columns(Reduction::Sum, block, inner, first + i * WIDTH, part, false);
            y.iter_mut().zip(part).for_each(|(y, p)| *y += *p);
        }
    }
}

/// `y[outer, inner]` from `x[outer, n, inner]`.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn reduce_f32(pool: &Pool, kind: Reduction, (outer, n, inner): (usize, usize, usize), x: &[f32], y: &mut [f32]) {
    assert!(x.len() == outer * n * inner && y.len() == outer * inner, "a reduction's sizes");
    if n == 0 || y.is_empty() {
        return y.fill(match kind {
            Reduction::Sum => 0.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
        });
    }
    if inner == 1 {
        return pool.rows(y, 1, (16_384 / n).max(1), |first, y| rows(kind, &x[first * n..(first + y.len()) * n], n, y));
    }
    if outer == 1 {
        return pool.rows(y, 1, (16_384 / n).max(16), |first, y| match kind {
            Reduction::Sum => column_sums(x, inner, first, y),
            kind => columns(kind, x, inner, first, y, false),
        });
    }
    pool.rows(y, inner, (16_384 / (n * inner)).max(1), |first, y| {
        for (o, y) in y.chunks_exact_mut(inner).enumerate() {
            let x = &x[(first + o) * n * inner..][..n * inner];
            match kind {
                Reduction::Sum => column_sums(x, inner, 0, y),
                kind => columns(kind, x, inner, 0, y, false),
            }
        }
    });
}

/// The sum of `e^(x - shift)`, in blocks, so that rounding errors do not grow with the length.
#[inline(always)]
fn exp_sum_body(x: &[f32], shift: f32) -> f32 {
    let mut total = 0f64;
    for block in x.chunks(512) {
        let mut terms = [0f32; 512];
        terms.iter_mut().zip(block).for_each(|(t, v)| *t = math::exp::<false>(v - shift));
        total += f64::from(sum(&terms[..block.len()]));
    }
    total as f32
}
crate::dispatch! {
    fn exp_sum(x: &[f32], shift: f32) -> f32 = exp_sum_body;
}

/// Columns `first..first + y.len()` of `[n, inner]`, at most [`COLUMNS`].
#[inline(always)]
fn logsumexp_columns_body(x: &[f32], inner: usize, first: usize, y: &mut [f32]) {
    columns(Reduction::Max, x, inner, first, y, false);
    let mut sums = [0f64; COLUMNS];
    for row in x.chunks_exact(inner) {
        for (sum, (v, largest)) in sums.iter_mut().zip(row[first..].iter().zip(&*y)) {
            *sum += f64::from(math::exp::<false>(v - largest));
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        if y.is_finite() {
            *y += math::log::<false>(sum as f32);
        }
    }
}
crate::dispatch! {
    fn logsumexp_columns(x: &[f32], inner: usize, first: usize, y: &mut [f32]) = logsumexp_columns_body;
}

/// How many columns [`logsumexp`] works on at once.
const COLUMNS: usize = 64;

/// `y[outer, inner]` is the logarithm of the sum of exponentials over the middle of
/// `x[outer, n, inner]`; where the largest value is infinite or NaN, that value.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn logsumexp(pool: &Pool, (outer, n, inner): (usize, usize, usize), x: &[f32], y: &mut [f32]) {
    assert!(x.len() == outer * n * inner && y.len() == outer * inner, "a reduction's sizes");
    if n == 0 || y.is_empty() {
        return y.fill(f32::NEG_INFINITY);
    }
    if inner == 1 {
        return pool.rows(y, 1, (2048 / n).max(1), |first, y| {
            for (row, y) in x[first * n..].chunks_exact(n).zip(y) {
                *y = largest(row);
                if y.is_finite() {
                    *y += math::log::<false>(exp_sum(row, *y));
                }
            }
        });
    }
    let (row, least) = if outer == 1 { (1, COLUMNS) } else { (inner, 1) };
    pool.rows(y, row, least, |first, y| {
        let width = if outer == 1 { y.len() } else { inner };
        let (o, column) = if outer == 1 { (0, first) } else { (first, 0) };
        for (k, y) in y.chunks_mut(width).enumerate() {
            let x = &x[(o + k) * n * inner..][..n * inner];
            for (c, y) in y.chunks_mut(COLUMNS).enumerate() {
                logsumexp_columns(x, inner, column + c * COLUMNS, y);
            }
        }
    });
}

/// The same over values of another kind, by folding.
pub fn fold<T: Copy + Send + Sync>(
    pool: &Pool,
    (n, inner): (usize, usize),
    x: &[T],
    y: &mut [T],
    start: T,
    f: impl Fn(T, T) -> T + Sync,
) {
    pool.rows(y, 1, (16_384 / n.max(1)).max(1), |first, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let (o, c) = ((first + i) / inner, (first + i) % inner);
            *y = (0..n).fold(start, |acc, k| f(acc, x[(o * n + k) * inner + c]));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arrangement() {
        let pool = Pool::new(2);
        for (outer, n, inner) in [(1, 1, 1), (3, 1000, 1), (1, 700, 33), (4, 5, 6), (2, 0, 3), (0, 3, 2), (1, 300, 600)]
        {
            let x: Vec<f32> = (0..outer * n * inner).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            for kind in [Reduction::Sum, Reduction::Max, Reduction::Min] {
                let mut y = vec![9.0; outer * inner];
                reduce_f32(&pool, kind, (outer, n, inner), &x, &mut y);
                for o in 0..outer {
                    for i in 0..inner {
                        let column = (0..n).map(|k| x[(o * n + k) * inner + i]);
                        let expected = match kind {
                            Reduction::Sum => column.sum::<f32>(),
                            Reduction::Max => column.fold(f32::NEG_INFINITY, f32::max),
                            Reduction::Min => column.fold(f32::INFINITY, f32::min),
                        };
                        assert_eq!(y[o * inner + i], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn logarithms_of_sums_of_exponentials() {
        let pool = Pool::new(2);
        for (outer, n, inner) in [(1, 1, 1), (3, 1000, 1), (1, 7, 133), (4, 5, 6), (2, 3, 70), (2, 0, 3), (0, 3, 2)] {
            let x: Vec<f32> = (0..outer * n * inner).map(|i| ((i * 37) % 101) as f32 * 2.0 - 80.0).collect();
            let mut y = vec![9.0; outer * inner];
            logsumexp(&pool, (outer, n, inner), &x, &mut y);
            for (i, y) in y.iter().enumerate() {
                let (o, c) = (i / inner, i % inner);
                let exact = (0..n).map(|k| f64::from(x[(o * n + k) * inner + c]).exp()).sum::<f64>().ln();
                assert!(f64::from(*y) == exact || (f64::from(*y) - exact).abs() < 2e-5, "{y} is not {exact}");
            }
        }
        let mut y = [0.0; 2];
        let inf = f32::INFINITY;
        logsumexp(&pool, (2, 2, 1), &[-inf, -inf, inf, 0.0], &mut y);
        assert_eq!(y, [-inf, inf]);
    }

    #[test]
    fn sums_keep_their_precision() {
        let x = vec![0.1f32; 10_000_000];
        let exact = 10_000_000.0 * 0.1f32 as f64;
        assert!((sum(&x) as f64 - exact).abs() < 1e-6 * exact);
    }

    #[test]
    fn nan_wins() {
        let mut y = [0.0];
        reduce_f32(&Pool::new(1), Reduction::Max, (1, 3, 1), &[1.0, f32::NAN, 2.0], &mut y);
        assert!(y[0].is_nan());
    }
}
