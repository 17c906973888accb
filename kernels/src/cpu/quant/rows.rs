//! Activations as tiles read them.
//!
//! Rows are taken in groups, one for each tile of rows; a group holds for each step along K the
//! values of all its rows. For the whole-number formats a step is four values rounded to eight
//! bits (a word), and beside the words lie, for each block of 32 and row, the scale and (for each
//! half that has a scale) where sums start: the sum of the rounded values times the offset of the
//! stored weights, negative; or, for weights with minima, what those are multiplied by: the sum
//! times the scale, an `f32`.

use super::Format;
use super::block::{BLOCK, largest};
use super::packed::{Kind, blocks, channel_scale};
use crate::cpu::gemm::Matrix;

/// Words of scratch memory for `m` rows.
pub(super) fn words(kind: Kind, m: usize, k: usize) -> usize {
    let b = blocks(k);
    match kind.format {
        _ if !kind.is_whole() => m * k,
        Format::Int8 => m * (b * BLOCK / 4 + 2),
        format => m * b * (BLOCK / 4 + 1 + format.scales()),
    }
}

/// Adding this number leaves a whole number of small magnitude, to nearest even, in the lowest bits.
const MAGIC: f32 = 12_582_912.0;

/// Rounds a block; gives the words and the sums of the whole numbers of both halves.
#[inline(always)]
fn round(x: &[f32; BLOCK], inverse: f32) -> ([i32; BLOCK / 4], [i32; 2]) {
    let mut q = [0i32; BLOCK];
    let mut sum = [0; 2];
    for i in 0..BLOCK {
        q[i] = (x[i] * inverse + MAGIC).to_bits().cast_signed() - MAGIC.to_bits().cast_signed();
        sum[i / 16] += q[i];
    }
    let mut words = [0; BLOCK / 4];
    for j in 0..BLOCK / 4 {
        words[j] = q[4 * j] & 255 | (q[4 * j + 1] & 255) << 8 | (q[4 * j + 2] & 255) << 16 | (q[4 * j + 3] & 255) << 24;
    }
    (words, sum)
}

/// Block `b` of a row that starts at `x[0]`, filled up with zeros.
#[inline(always)]
fn block(x: &[f32], col: usize, k: usize, b: usize) -> [f32; BLOCK] {
    let first = b * BLOCK;
    let mut values = [0.0; BLOCK];
    if col == 1 && first + BLOCK <= k {
        values.copy_from_slice(&x[first..first + BLOCK]);
    } else {
        for i in 0..BLOCK.min(k - first) {
            values[i] = x[(first + i) * col];
        }
    }
    values
}

/// The same; nothing is made of values that are not finite: the scale says it.
#[inline(always)]
fn round_finite(x: &[f32; BLOCK], inverse: f32) -> ([i32; BLOCK / 4], [i32; 2]) {
    if inverse == 0.0 { ([0; BLOCK / 4], [0; 2]) } else { round(x, inverse) }
}

/// A group of `rows` rows, as `words(kind, rows, k)` words.
#[inline(always)]
fn group_body(kind: Kind, rows: usize, k: usize, x: &[f32], at: Matrix, out: &mut [i32]) {
    let (count, format) = (blocks(k), kind.format);
    let (zero, halves) = (format.zero(), format.scales());
    for r in 0..rows {
        let row = &x[(r * at.row).min(x.len())..];
        if !kind.is_whole() {
            for i in 0..k {
                out[i * rows + r] = row[i * at.col].to_bits().cast_signed();
            }
            continue;
        }
        let (words, rest) = out.split_at_mut(rows * count * (BLOCK / 4));
        if matches!(format, Format::Int8) {
            let (scales, starts) = rest.split_at_mut(rows);
            let mut most = 0;
            for b in 0..count {
                most = most.max(largest(&block(row, at.col, k, b)));
            }
            let (scale, inverse) = channel_scale(most);
            let mut total = 0;
            for b in 0..count {
                let (four, sum) = round_finite(&block(row, at.col, k, b), inverse);
                total += sum[0] + sum[1];
                for j in 0..BLOCK / 4 {
                    words[(b * (BLOCK / 4) + j) * rows + r] = four[j];
                }
            }
            scales[r] = scale.to_bits().cast_signed();
            starts[r] = -zero * total;
            continue;
        }
        let (scales, starts) = rest.split_at_mut(rows * count);
        for b in 0..count {
            let x = block(row, at.col, k, b);
            let (scale, inverse) = channel_scale(largest(&x));
            let (four, sum) = round_finite(&x, inverse);
            for j in 0..BLOCK / 4 {
                words[(b * (BLOCK / 4) + j) * rows + r] = four[j];
            }
            scales[b * rows + r] = scale.to_bits().cast_signed();
            let sums = if halves == 2 { sum } else { [sum[0] + sum[1], 0] };
            for h in 0..halves {
                starts[(b * halves + h) * rows + r] = match format.has_min() {
                    true => (scale * sums[h] as f32).to_bits().cast_signed(),
                    false => -zero * sums[h],
                };
            }
        }
    }
}
crate::dispatch! {
    /// Lays out a group of `rows` rows of `k` values, `(r, i)` at `x[r * at.row + i * at.col]`, in
    /// `words(kind, rows, k)` words.
    pub(super) fn group(kind: Kind, rows: usize, k: usize, x: &[f32], at: Matrix, out: &mut [i32]) = group_body;
}
