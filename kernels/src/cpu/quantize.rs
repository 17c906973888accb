//! What is left of values that go through eight bits: each is multiplied by a scale, rounded to the
//! nearest number of the format, and multiplied by the scale's reciprocal.
//!
//! A scale is given ([`scaled`]) or is that of a tile of the values itself ([`tiles`]): a row, a
//! part of a row, a square. Tiles lie on `[outer, rows, columns]`, in each of `outer` matrices for
//! themselves; the last of a row or column may be smaller. Values are read twice (greatest
//! magnitude, then rounding) while a cache holds them.

use super::parts::Parts;
use super::quant::half::{from_bf16, to_bf16};
use crate::fp8::{self, Fp8, Scale};
use crate::pool::Pool;
use std::sync::atomic::{AtomicU32, Ordering};

/// Values that a task takes at least.
const LEAST: usize = 16 * 1024;

/// Columns at a time where tiles are one column wide.
const WIDE: usize = 64;

/// The greatest magnitude, 0 for nothing; NaN is passed over.
pub fn amax(pool: &Pool, x: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits.
    let greatest = AtomicU32::new(0);
    pool.run(x.len().div_ceil(LEAST), &|i| {
        let part = &x[i * LEAST..x.len().min((i + 1) * LEAST)];
        greatest.fetch_max(fp8::amax(part).to_bits(), Ordering::Relaxed);
    });
    f32::from_bits(greatest.into_inner())
}

/// `round(x * scale) / scale` for every value.
///
/// # Panics
/// When the slices are of different lengths.
pub fn scaled(pool: &Pool, format: Fp8, x: &[f32], scale: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many values as results");
    let back = 1.0 / scale;
    pool.rows(y, 1, LEAST, |first, y| fp8::round_scaled(format, &x[first..][..y.len()], scale, back, y));
}

/// Every value rounded to bf16.
///
/// # Panics
/// When the slices are of different lengths.
pub fn bf16(pool: &Pool, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many values as results");
    pool.rows(y, 1, LEAST, |first, y| round_bf16(&x[first..][..y.len()], y));
}

#[inline(always)]
fn round_bf16_body(x: &[f32], y: &mut [f32]) {
    x.iter().zip(y).for_each(|(x, y)| *y = from_bf16(to_bf16(*x)));
}
crate::dispatch! {
    fn round_bf16(x: &[f32], y: &mut [f32]) = round_bf16_body;
}

/// The tiles of `[outer, rows, columns]` values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiles {
    /// Matrices.
    pub outer: usize,
    /// Rows and columns of each.
    pub size: (usize, usize),
    /// Rows and columns of a tile.
    pub tile: (usize, usize),
}

/// Every value through eight bits, with the scale of its tile.
///
/// # Panics
/// When the slices have other lengths than the tiles' matrices, or a tile is empty.
pub fn tiles(pool: &Pool, format: Fp8, scale: Scale, at: Tiles, x: &[f32], y: &mut [f32]) {
    let Tiles { outer, size: (rows, columns), tile: (high, wide) } = at;
    assert!(x.len() == outer * rows * columns && y.len() == x.len(), "as many values as results");
    assert!(high > 0 && wide > 0, "tiles have values");
    if x.is_empty() {
        return;
    }
    // Tiles of one column go side by side.
    let across = if wide == 1 { WIDE } else { wide }.min(columns);
    let high = high.min(rows);
    let (bands, strips) = (rows.div_ceil(high), columns.div_ceil(across));
    let count = outer * bands * strips;
    let each = (LEAST / (high * across)).clamp(1, count);
    let y = Parts::new(y);
    pool.run(count.div_ceil(each), &|task| {
        for unit in task * each..count.min((task + 1) * each) {
            let (band, strip) = (unit / strips, unit % strips);
            let first = band / bands * rows + band % bands * high;
            let left = strip * across;
            let area = Area {
                start: first * columns + left,
                step: columns,
                high: high.min(rows - band % bands * high),
                wide: across.min(columns - left),
            };
            match wide {
                1 => upright(format, scale, area, x, &y),
                _ => single(format, scale, area, x, &y),
            }
        }
    });
}

/// Part of a matrix.
#[derive(Clone, Copy)]
struct Area {
    start: usize,
    step: usize,
    high: usize,
    wide: usize,
}

impl Area {
    fn row<'x>(&self, x: &'x [f32], i: usize) -> &'x [f32] {
        &x[self.start + i * self.step..][..self.wide]
    }
}

/// One tile.
fn single(format: Fp8, scale: Scale, area: Area, x: &[f32], y: &Parts<f32>) {
    let amax = (0..area.high).map(|i| fp8::amax(area.row(x, i))).fold(0.0, f32::max);
    let scale = scale.of(format, amax);
    for i in 0..area.high {
        // SAFETY: areas do not overlap, nor do the rows of one.
        let to = unsafe { y.get(area.start + i * area.step, area.wide) };
        fp8::round_scaled(format, area.row(x, i), scale, 1.0 / scale, to);
    }
}

/// Tiles of one column each, side by side.
fn upright(format: Fp8, scale: Scale, area: Area, x: &[f32], y: &Parts<f32>) {
    let (mut to, mut back) = ([0f32; WIDE], [0f32; WIDE]);
    let (to, back) = (&mut to[..area.wide], &mut back[..area.wide]);
    for i in 0..area.high {
        greater(area.row(x, i), to);
    }
    for (to, back) in to.iter_mut().zip(&mut *back) {
        *to = scale.of(format, *to);
        *back = 1.0 / *to;
    }
    for i in 0..area.high {
        // SAFETY: areas do not overlap, nor do the rows of one.
        let y = unsafe { y.get(area.start + i * area.step, area.wide) };
        round_each(format, area.row(x, i), to, back, y);
    }
}

#[inline(always)]
fn greater_body(x: &[f32], most: &mut [f32]) {
    x.iter().zip(most).for_each(|(x, m)| *m = if x.abs() > *m { x.abs() } else { *m });
}
crate::dispatch! {
    fn greater(x: &[f32], most: &mut [f32]) = greater_body;
}

#[inline(always)]
fn round_each_body(format: Fp8, x: &[f32], scale: &[f32], back: &[f32], y: &mut [f32]) {
    let all = x.iter().zip(scale).zip(back).zip(y);
    match format {
        Fp8::E4M3 => all.for_each(|(((x, s), b), y)| *y = Fp8::E4M3.round(x * s) * b),
        Fp8::E5M2 => all.for_each(|(((x, s), b), y)| *y = Fp8::E5M2.round(x * s) * b),
    }
}
crate::dispatch! {
    fn round_each(format: Fp8, x: &[f32], scale: &[f32], back: &[f32], y: &mut [f32]) = round_each_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<f32> {
        let word = |i: usize| (i as u32 + 1).wrapping_mul(2_654_435_761);
        (0..n).map(|i| (word(i) as f32 / u32::MAX as f32 - 0.5) * (1 << (word(i) % 19)) as f32).collect()
    }

    const EXACT: Scale = Scale::Exact { epsilon: 0.0, power_of_two: false };

    /// Each value by the amax of its tile, in plain loops.
    fn plain(format: Fp8, scale: Scale, at: Tiles, x: &[f32]) -> Vec<f32> {
        let (rows, columns) = at.size;
        let place = |i: usize| {
            let (o, r, c) = (i / (rows * columns), i / columns % rows, i % columns);
            (o, r / at.tile.0, c / at.tile.1)
        };
        let mut amax = std::collections::HashMap::new();
        for (i, x) in x.iter().enumerate() {
            let most = amax.entry(place(i)).or_insert(0f32);
            *most = most.max(x.abs());
        }
        let through = |(i, x): (usize, &f32)| {
            let scale = scale.of(format, amax[&place(i)]);
            format.round(x * scale) * (1.0 / scale)
        };
        x.iter().enumerate().map(through).collect()
    }

    #[test]
    fn every_tile_has_a_scale_of_its_own() {
        let pool = Pool::new(2);
        for size in [(1, 1), (3, 5), (5, 1), (1, 70), (37, 131), (65, 33)] {
            for tile in [(1, 4), (4, 1), (3, 3), (1, usize::MAX), (usize::MAX, 1), (32, 1), (128, 128)] {
                for (format, scale) in [(Fp8::E4M3, EXACT), (Fp8::E5M2, Scale::E8M0)] {
                    let at = Tiles { outer: 2, size, tile };
                    let x = noise(2 * size.0 * size.1);
                    let mut y = vec![f32::NAN; x.len()];
                    tiles(&pool, format, scale, at, &x, &mut y);
                    assert_eq!(y, plain(format, scale, at, &x), "{at:?}");
                }
            }
        }
        tiles(&pool, Fp8::E4M3, EXACT, Tiles { outer: 0, size: (3, 4), tile: (1, 4) }, &[], &mut []);
    }

    #[test]
    fn large_arrays_are_shared_among_threads() {
        let pool = Pool::new(3);
        let mut x = noise(100_003);
        x[77_777] = -1e9;
        assert_eq!((amax(&pool, &x), amax(&pool, &[])), (1e9, 0.0));
        let mut y = vec![0.0; x.len()];
        scaled(&pool, Fp8::E5M2, &x, 0.25, &mut y);
        assert!((0..x.len()).all(|i| y[i] == Fp8::E5M2.round(x[i] * 0.25) * 4.0));
        bf16(&pool, &x, &mut y);
        assert!((0..x.len()).all(|i| y[i] == from_bf16(to_bf16(x[i]))));
        let at = Tiles { outer: 1, size: (1, x.len()), tile: (1, 32) };
        tiles(&pool, Fp8::E4M3, Scale::E8M0, at, &x, &mut y);
        assert_eq!(y, plain(Fp8::E4M3, Scale::E8M0, at, &x));
    }
}
