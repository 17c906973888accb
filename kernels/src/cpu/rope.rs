//! Rotary embedding: rotation of pairs of features.

use crate::pool::Pool;

/// Which row of the table a row of features takes: the sum over `(divisor, size, stride)` of
/// `row / divisor % size * stride`.
pub type Follow = [(usize, usize, usize)];

/// How rows are rotated.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Features in a row.
    pub features: usize,
    /// Pairs of them.
    pub half: usize,
    /// Whether pairs are neighbours, rather than halves apart.
    pub interleaved: bool,
    /// Whether the angle is negative.
    pub inverse: bool,
}

#[inline(always)]
fn row_body(op: Rope, x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) {
    let sign = if op.inverse { -1.0 } else { 1.0 };
    let (x, x_rest) = x.split_at(2 * op.half);
    let (y, y_rest) = y.split_at_mut(2 * op.half);
    y_rest.copy_from_slice(x_rest);
    if op.interleaved {
        let pairs = x.chunks_exact(2).zip(y.chunks_exact_mut(2));
        for ((x, y), (c, s)) in pairs.zip(cos.iter().zip(sin)) {
            let s = s * sign;
            (y[0], y[1]) = (x[0] * c - x[1] * s, x[1] * c + x[0] * s);
        }
        return;
    }
    let (a, b) = x.split_at(op.half);
    let (p, q) = y.split_at_mut(op.half);
    for i in 0..op.half {
        let (c, s) = (cos[i], sin[i] * sign);
        p[i] = a[i] * c - b[i] * s;
        q[i] = b[i] * c + a[i] * s;
    }
}
#[inline(always)]
fn rows_body(op: Rope, x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(op.features).zip(y.chunks_exact_mut(op.features)) {
        row_body(op, x, cos, sin, y);
    }
}
crate::dispatch! {
    fn rows(op: Rope, x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) = rows_body;
}

/// Rotates every row of `x`; rows of the tables are `op.half` long.
pub fn rope(pool: &Pool, op: Rope, follow: &Follow, x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) {
    if op.features == 0 {
        return;
    }
    // Neighbouring rows (the heads of a position) share a row of the table.
    let together = follow.iter().map(|f| f.0).min().unwrap_or(usize::MAX).max(1);
    pool.rows(y, op.features, (4096 / op.features).max(1), |first, block| {
        let last = first + block.len() / op.features;
        let (mut row, mut rest) = (first, block);
        while row < last {
            let count = (together - row % together).min(last - row);
            let at = follow.iter().map(|(d, n, s)| row / d % n * s).sum::<usize>() * op.half;
            let (y, behind) = rest.split_at_mut(count * op.features);
            let x = &x[row * op.features..(row + count) * op.features];
            rows(op, x, &cos[at..at + op.half], &sin[at..at + op.half], y);
            (row, rest) = (row + count, behind);
        }
    });
}

/// `cos` and `sin` of `position * frequency`, times `factor`. Angles are reduced in `f64`, so that
/// far positions are as exact as near ones.
pub fn table(pool: &Pool, frequencies: &[f64], factor: f64, positions: &[i32], cos: &mut [f32], sin: &mut [f32]) {
    let half = frequencies.len();
    let fill = |out: &mut [f32], f: fn(f64) -> f64| {
        pool.rows(out, half, (256 / half.max(1)).max(1), |first, block| {
            for (r, row) in block.chunks_exact_mut(half).enumerate() {
                let position = positions[first + r] as f64;
                row.iter_mut().zip(frequencies).for_each(|(o, w)| *o = (f(position * w) * factor) as f32);
            }
        });
    };
    fill(cos, f64::cos);
    fill(sin, f64::sin);
}
