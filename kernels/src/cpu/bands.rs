//! Products with a matrix whose rows are zero but for some neighbours: a bank of filters, each of which hears
//! a few frequencies.
//!
//! `y[b, r, t] = sum over k of w[r, k] x[b, k, t]`, where only the `k` of a row's band are read: of 80 mel
//! filters over 257 bins a fortieth. Each element of a row of `y` is summed by itself, in the order of `k`, so
//! results depend neither on threads nor on what else is computed.

use super::parts::Parts;
use super::simd::{Level, level};
use super::vector::{Vector, at_level};
use crate::pool::Pool;

/// Columns that one task computes of all rows: what they read stays in the second cache.
const BLOCK: usize = 256;

/// A matrix by the bands of its rows.
#[derive(Clone, Debug)]
pub struct Bands {
    columns: usize,
    /// For each row the first column of its band, and where the band's values lie.
    rows: Vec<(usize, std::ops::Range<usize>)>,
    values: Vec<f32>,
}

impl Bands {
    /// A matrix of `rows` by `columns` values, at these strides.
    ///
    /// # Panics
    /// When the matrix reaches beyond `w`.
    pub fn new(w: &[f32], (rows, columns): (usize, usize), (row, column): (usize, usize)) -> Bands {
        let mut bands = Bands { columns, rows: Vec::with_capacity(rows), values: vec![] };
        for r in 0..rows {
            let at = |k: &usize| w[r * row + k * column];
            let counts = |k: &usize| at(k) != 0.0;
            let first = (0..columns).find(counts).unwrap_or(0);
            let end = (first..columns).rev().find(counts).map_or(first, |last| last + 1);
            let start = bands.values.len();
            bands.values.extend((first..end).map(|k| at(&k)));
            bands.rows.push((first, start..bands.values.len()));
        }
        bands
    }

    /// Rows of the matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Its columns.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// How many values the bands hold.
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

/// Where the entries of a batch lie: a value's neighbours along `t` are its neighbours in memory.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Entries.
    pub count: usize,
    /// Columns of each entry: the extent of `t`.
    pub columns: usize,
    /// The distance of entries in `x`.
    pub entry: usize,
    /// The distance of an entry's rows in `x`.
    pub row: usize,
}

impl Batch {
    /// How many values of `x` are read, from the first to the last.
    fn reach(&self, rows: usize) -> usize {
        let last = (self.count.saturating_sub(1)) * self.entry + rows.saturating_sub(1) * self.row;
        if self.count * self.columns * rows == 0 { 0 } else { last + self.columns }
    }
}

/// The product of the matrix with every entry; `y` is `[count, rows, columns]`.
///
/// # Panics
/// When entries reach beyond `x`, or `y` is of another size.
pub fn bands(pool: &Pool, w: &Bands, batch: Batch, x: &[f32], y: &mut [f32]) {
    bands_at(level(), pool, w, batch, x, y);
}

fn bands_at(level: Level, pool: &Pool, w: &Bands, batch: Batch, x: &[f32], y: &mut [f32]) {
    let (rows, n) = (w.rows.len(), batch.columns);
    assert!(batch.reach(w.columns) <= x.len(), "an entry is cut off");
    assert_eq!(y.len(), batch.count * rows * n, "a result for every row and column");
    let (y, blocks) = (Parts::new(y), n.div_ceil(BLOCK));
    pool.run(batch.count * blocks, &|task| {
        let (entry, t) = (task / blocks, task % blocks * BLOCK);
        let count = BLOCK.min(n - t);
        // SAFETY: tasks have distinct columns, and rows are distinct.
        let to = |r: usize| unsafe { y.get((entry * rows + r) * n + t, count) };
        block(level, w, &x[(entry * batch.entry + t).min(x.len())..], batch.row, to);
    });
}

/// The products of all rows with neighbouring columns, as many as there is room for in what `y` gives
/// for a row. The matrix's columns are `stride` apart in `x`.
///
/// # Panics
/// When they reach beyond `x`.
pub(super) fn block<'y>(level: Level, w: &Bands, x: &[f32], stride: usize, y: impl Fn(usize) -> &'y mut [f32]) {
    for (r, (first, band)) in w.rows.iter().enumerate() {
        let y = y(r);
        let last = first + band.len().saturating_sub(1);
        assert!(band.is_empty() || last * stride + y.len() <= x.len(), "an entry is cut off");
        let x = x.as_ptr().wrapping_add(first * stride);
        // SAFETY: the level is the processor's; the band's rows lie in `x`.
        unsafe { row(level, &w.values[band.clone()], x, stride, y) };
    }
}

/// `y[t] = sum over k of w[k] x[k * stride + t]`
///
/// # Safety
/// The vector's instructions exist; `x` holds `y.len()` values at each of the strides.
#[inline(always)]
unsafe fn row_body<V: Vector>(w: &[f32], x: *const f32, stride: usize, y: &mut [f32]) {
    let mut t = 0;
    // SAFETY: by the caller's promise; whole vectors within `y`.
    unsafe {
        while t + 4 * V::LANES <= y.len() {
            let mut sums = [V::splat(0.0); 4];
            for (k, w) in w.iter().enumerate() {
                let (w, x) = (V::splat(*w), x.add(k * stride + t));
                for i in 0..4 {
                    sums[i] = V::load(x.add(i * V::LANES)).fma(w, sums[i]);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store(y.as_mut_ptr().add(t + i * V::LANES));
            }
            t += 4 * V::LANES;
        }
        while t + V::LANES <= y.len() {
            let mut sum = V::splat(0.0);
            for (k, w) in w.iter().enumerate() {
                sum = V::load(x.add(k * stride + t)).fma(V::splat(*w), sum);
            }
            sum.store(y.as_mut_ptr().add(t));
            t += V::LANES;
        }
        for (i, y) in y.iter_mut().enumerate().skip(t) {
            *y = w.iter().enumerate().fold(0.0, |sum, (k, w)| V::one(*x.add(k * stride + i), *w, sum));
        }
    }
}
at_level! {
    /// See [`row_body`].
    unsafe fn row(w: &[f32], x: *const f32, stride: usize, y: &mut [f32]) = row_body;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::levels;

    #[test]
    fn every_level_gives_the_dense_product() {
        let (rows, columns, n, count) = (7, 9, 300, 2);
        // Bands of several widths, one of them empty; with a zero within.
        let w: Vec<f32> = (0..rows * columns)
            .map(|i| match (i / columns, i % columns) {
                (r, k) if r != 3 && k >= r && k < r + 3 && k != r + 1 => (r + 2 * k) as f32 * 0.25,
                _ => 0.0,
            })
            .collect();
        let batch = Batch { count, columns: n, entry: columns * (n + 5) + 3, row: n + 5 };
        let x: Vec<f32> = (0..batch.reach(columns)).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let transposed: Vec<f32> = (0..rows * columns).map(|i| w[i % rows * columns + i / rows]).collect();
        let same = Bands::new(&transposed, (rows, columns), (1, rows));
        let matrix = Bands::new(&w, (rows, columns), (columns, 1));
        assert_eq!((&same.values, &same.rows), (&matrix.values, &matrix.rows));
        assert!(matrix.count() < w.len() / 2);
        for level in levels() {
            let mut y = vec![f32::NAN; count * rows * n];
            bands_at(level, &Pool::new(2), &matrix, batch, &x, &mut y);
            for (i, found) in y.iter().enumerate() {
                let (b, r, t) = (i / (rows * n), i / n % rows, i % n);
                let term = |k: usize| w[r * columns + k] * x[b * batch.entry + k * batch.row + t];
                // Whole numbers of quarters: sums are exact.
                assert_eq!(*found, (0..columns).map(term).sum::<f32>(), "{level:?} {b} {r} {t}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "cut off")]
    fn entries_that_are_cut_off_panic() {
        let matrix = Bands::new(&[1.0; 4], (2, 2), (2, 1));
        let batch = Batch { count: 1, columns: 3, entry: 0, row: 3 };
        bands(&Pool::new(1), &matrix, batch, &[0.0; 5], &mut [0.0; 6]);
    }
}
