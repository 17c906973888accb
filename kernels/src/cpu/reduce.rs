//! Reductions of the middle of `[outer, n, inner]`.

use super::math;
use super::stream::sum_each;
use crate::pool::Pool;

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// The sum; 0 over nothing.
    Sum,
    /// The sum of squares; 0 over nothing.
    SumSquares,
    /// The largest; minus infinity (or the smallest number) over nothing. NaN wins.
    Max,
    /// The smallest; infinity (or the largest number) over nothing. NaN wins.
    Min,
}

impl Reduction {
    /// How results of parts are joined.
    #[inline(always)]
    fn of_parts(self) -> Reduction {
        if self == Reduction::SumSquares { Reduction::Sum } else { self }
    }
}

/// A sum in lanes of blocks, so that rounding errors do not grow with the length.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_each!([x], x)
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $pick:ident, $start:expr) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(x: &[f32]) -> f32 {
            let mut lanes = [$start; 64];
            let chunks = x.chunks_exact(64);
            let mut rest = $start;
            for v in chunks.remainder() {
                rest = $pick(rest, *v);
            }
            for c in chunks {
                let c: &[f32; 64] = c.try_into().expect("so many lanes");
                for i in 0..64 {
                    lanes[i] = $pick(lanes[i], c[i]);
                }
            }
            let mut width = 32;
            while width > 0 {
                for i in 0..width {
                    lanes[i] = $pick(lanes[i], lanes[i + width]);
                }
                width /= 2;
            }
            $pick(rest, lanes[0])
        }
    };
}
extreme!(
    /// The largest value; NaN wins.
    largest, max, f32::NEG_INFINITY
);
extreme!(
    /// The smallest value; NaN wins.
    smallest, min, f32::INFINITY
);

#[inline(always)]
fn rows_body(kind: Reduction, x: &[f32], n: usize, y: &mut [f32]) {
    for (row, y) in x.chunks_exact(n).zip(y) {
        *y = match kind {
            Reduction::Sum => sum(row),
            Reduction::SumSquares => sum_each!([row], row * row),
            Reduction::Max => largest(row),
            Reduction::Min => smallest(row),
        };
    }
}
crate::dispatch! {
    fn rows(kind: Reduction, x: &[f32], n: usize, y: &mut [f32]) = rows_body;
}

/// Columns that are summed in registers or at least in the first-level cache.
const WIDE: usize = 512;
/// Rows whose sums are made apart before they are joined: rounding errors grow with these and
/// with the number of such blocks, not with all rows.
const TALL: usize = 128;

/// Joins the rows of `x [_, inner]` from column `first` on into `y`, at most [`WIDE`] columns.
#[inline(always)]
fn columns_body(kind: Reduction, x: &[f32], inner: usize, first: usize, y: &mut [f32]) {
    let start = match kind {
        Reduction::Sum | Reduction::SumSquares => 0.0,
        Reduction::Max => f32::NEG_INFINITY,
        Reduction::Min => f32::INFINITY,
    };
    y.fill(start);
    let mut part = [0f32; WIDE];
    let part = &mut part[..y.len()];
    let mut block = 0;
    while block < x.len() {
        let end = (block + TALL * inner).min(x.len());
        part.fill(start);
        let mut row = block;
        // Several rows at a time: the partial results are read and written a fraction as often.
        while row + ROWS * inner <= end {
            several(kind, &x[row + first..row + (ROWS - 1) * inner + first + part.len()], inner, part);
            row += ROWS * inner;
        }
        while row < end {
            join(kind, &x[row + first..][..y.len()], part);
            row += inner;
        }
        join(kind.of_parts(), part, y);
        block = end;
    }
}
crate::dispatch! {
    fn columns(kind: Reduction, x: &[f32], inner: usize, first: usize, y: &mut [f32]) = columns_body;
}

/// Rows that are joined at once.
const ROWS: usize = 8;

/// Joins [`ROWS`] rows, `inner` values apart, with `y`.
#[inline(always)]
fn several(kind: Reduction, x: &[f32], inner: usize, y: &mut [f32]) {
    const LANES: usize = 64;
    let width = y.len();
    let mut at = 0;
    while at + LANES <= width {
        let sums: &mut [f32; LANES] = (&mut y[at..at + LANES]).try_into().expect("so many lanes");
        let mut lanes = *sums;
        for k in 0..ROWS {
            let row: &[f32; LANES] = x[k * inner + at..][..LANES].try_into().expect("so many lanes");
            join(kind, row, &mut lanes);
        }
        *sums = lanes;
        at += LANES;
    }
    for k in 0..ROWS {
        join(kind, &x[k * inner + at..k * inner + width], &mut y[at..]);
    }
}

/// Joins every value of `x` with that of `y`.
#[inline(always)]
fn join(kind: Reduction, x: &[f32], y: &mut [f32]) {
    let x = &x[..y.len()];
    match kind {
        Reduction::Sum => {
            for i in 0..y.len() {
                y[i] += x[i];
            }
        }
        Reduction::SumSquares => {
            for i in 0..y.len() {
                y[i] += x[i] * x[i];
            }
        }
        Reduction::Max => {
            for i in 0..y.len() {
                y[i] = max(y[i], x[i]);
            }
        }
        Reduction::Min => {
            for i in 0..y.len() {
                y[i] = min(y[i], x[i]);
            }
        }
    }
}

/// Parts in which many rows are joined, by sizes alone. Up to so many times [`TALL`] rows, the order is that of one
/// part, and rows of zeros behind change nothing.
const PARTS: usize = 64;

/// How many rows a part has, if rows are worth dividing: few columns cannot employ the threads,
/// and narrow strips of a large array are read badly.
fn part(n: usize, inner: usize) -> Option<usize> {
    let each = n.div_ceil(PARTS).next_multiple_of(TALL);
    (n > each && n * inner >= 1 << 16).then_some(each)
}

/// Scratch values that [`reduce_f32`] needs for these sizes.
pub fn reduce_scratch((outer, n, inner): (usize, usize, usize)) -> usize {
    if outer == 1 && part(n, inner).is_some() { PARTS * inner } else { 0 }
}

/// `y[outer, inner]` from `x[outer, n, inner]`. `scratch` has [`reduce_scratch`] values, or none:
/// then few columns are the work of few threads.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn reduce_f32(
    pool: &Pool,
    kind: Reduction,
    (outer, n, inner): (usize, usize, usize),
    x: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    assert!(x.len() == outer * n * inner && y.len() == outer * inner, "a reduction's sizes");
    if n == 0 || y.is_empty() {
        return y.fill(match kind {
            Reduction::Sum | Reduction::SumSquares => 0.0,
            Reduction::Max => f32::NEG_INFINITY,
            Reduction::Min => f32::INFINITY,
        });
    }
    let strips = |kind: Reduction, x: &[f32], y: &mut [f32]| {
        for (i, y) in y.chunks_mut(WIDE).enumerate() {
            columns(kind, x, inner, i * WIDE, y);
        }
    };
    match part(n, inner) {
        Some(each) if outer == 1 && !scratch.is_empty() => {
            let parts = n.div_ceil(each);
            let scratch = &mut scratch[..parts * inner];
            pool.rows(scratch, inner, 1, |first, block| {
                for (p, y) in block.chunks_exact_mut(inner).enumerate() {
                    let from = (first + p) * each;
                    let x = &x[from * inner..(from + each).min(n) * inner];
                    if inner == 1 { rows(kind, x, x.len(), y) } else { strips(kind, x, y) }
                }
            });
            strips(kind.of_parts(), scratch, y);
        }
        _ if inner == 1 => {
            pool.rows(y, 1, (16_384 / n).max(1), |first, y| rows(kind, &x[first * n..(first + y.len()) * n], n, y))
        }
        _ if outer == 1 => pool.rows(y, 1, (16_384 / n).max(64), |first, y| {
            for (i, y) in y.chunks_mut(WIDE).enumerate() {
                columns(kind, x, inner, first + i * WIDE, y);
            }
        }),
        _ => pool.rows(y, inner, (16_384 / (n * inner)).max(1), |first, y| {
            for (o, y) in y.chunks_exact_mut(inner).enumerate() {
                strips(kind, &x[(first + o) * n * inner..][..n * inner], y);
            }
        }),
    }
}

/// The logarithms of sums of exponentials of rows.
#[inline(always)]
fn logsumexp_rows_body<const FUSED: bool>(x: &[f32], n: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(n).zip(y) {
        let shift = largest(x);
        *y = shift;
        if shift.is_finite() {
            *y += math::log::<FUSED>(sum_each!([x], math::exp_flushed::<FUSED>(x - shift)));
        }
    }
}
crate::dispatch! {
    fn logsumexp_rows(x: &[f32], n: usize, y: &mut [f32]) = fused logsumexp_rows_body;
}

/// Columns `first..first + y.len()` of `[n, inner]`, at most [`COLUMNS`].
#[inline(always)]
fn logsumexp_columns_body<const FUSED: bool>(x: &[f32], inner: usize, first: usize, y: &mut [f32]) {
    columns_body(Reduction::Max, x, inner, first, y);
    let mut sums = [0f64; COLUMNS];
    for row in x.chunks_exact(inner) {
        let row = &row[first..first + y.len()];
        let sums = &mut sums[..y.len()];
        for i in 0..y.len() {
            sums[i] += f64::from(math::exp_flushed::<FUSED>(row[i] - y[i]));
        }
    }
    for i in 0..y.len() {
        if y[i].is_finite() {
            y[i] += math::log::<FUSED>(sums[i] as f32);
        }
    }
}
crate::dispatch! {
    fn logsumexp_columns(x: &[f32], inner: usize, first: usize, y: &mut [f32]) = fused logsumexp_columns_body;
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
        return pool.rows(y, 1, (2048 / n).max(1), |first, y| logsumexp_rows(&x[first * n..], n, y));
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
        for (outer, n, inner) in [
            (1, 1, 1),
            (3, 1000, 1),
            (1, 700, 33),
            (4, 5, 6),
            (2, 0, 3),
            (0, 3, 2),
            (1, 300, 600),
            (1, 5000, 40),
            (1, 70_001, 1),
            (3, 300, 1100),
        ] {
            let x: Vec<f32> = (0..outer * n * inner).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            for kind in [Reduction::Sum, Reduction::SumSquares, Reduction::Max, Reduction::Min] {
                let mut y = vec![9.0; outer * inner];
                let mut scratch = vec![7.0; reduce_scratch((outer, n, inner))];
                reduce_f32(&pool, kind, (outer, n, inner), &x, &mut y, &mut scratch);
                for o in 0..outer {
                    for i in 0..inner {
                        let column = (0..n).map(|k| x[(o * n + k) * inner + i]);
                        let expected = match kind {
                            Reduction::Sum => column.sum::<f32>(),
                            Reduction::SumSquares => {
                                let exact: f64 = column.map(|v| f64::from(v) * f64::from(v)).sum();
                                let near = (f64::from(y[o * inner + i]) - exact).abs() <= 1e-6 * exact;
                                assert!(near, "{} is not {exact}", y[o * inner + i]);
                                continue;
                            }
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
    fn zeros_behind_change_no_sum() {
        let pool = Pool::new(2);
        let x: Vec<f32> = (0..4000 * 40).map(|i| ((i * 7919) % 1013) as f32 * 0.37 - 170.0).collect();
        for (outer, inner) in [(1, 1), (1, 40), (3, 1), (2, 13)] {
            for n in [1, 31, 33, 500, 530, 1500, 3000] {
                for longer in [n + 1, n + 31, n + 700, PARTS * TALL] {
                    let sums = |padded: usize| {
                        let mut wide = vec![0.0; outer * padded * inner];
                        for o in 0..outer {
                            wide[o * padded * inner..][..n * inner].copy_from_slice(&x[o * 100..][..n * inner]);
                        }
                        let mut y = vec![0.0; outer * inner];
                        let size = (outer, padded, inner);
                        let mut scratch = vec![7.0; reduce_scratch(size)];
                        reduce_f32(&pool, Reduction::Sum, size, &wide, &mut y, &mut scratch);
                        y
                    };
                    assert_eq!(sums(n), sums(longer), "{outer} of {n} or {longer} by {inner}");
                }
            }
        }
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
        reduce_f32(&Pool::new(1), Reduction::Max, (1, 3, 1), &[1.0, f32::NAN, 2.0], &mut y, &mut []);
        assert!(y[0].is_nan());
    }
}
