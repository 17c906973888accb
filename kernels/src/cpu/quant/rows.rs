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
use crate::cpu::simd::{Level, level};

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
    let mut q = [0u8; BLOCK];
    let mut sum = [0i32; 2];
    for half in 0..2 {
        for i in 16 * half..16 * half + 16 {
            let bits = (x[i] * inverse + MAGIC).to_bits();
            q[i] = bits as u8;
            sum[half] = sum[half].wrapping_add_unsigned(bits.wrapping_sub(MAGIC.to_bits()));
        }
    }
    let (words, _) = q.as_chunks::<4>();
    (std::array::from_fn(|j| i32::from_le_bytes(words[j])), sum)
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

/// The scale of block `b` of a row, its words and the sums of both halves. `wide`: the processor has
/// AVX-512, and values are next to each other.
#[inline(always)]
fn scaled(row: &[f32], col: usize, k: usize, b: usize, wide: bool) -> (f32, [i32; BLOCK / 4], [i32; 2]) {
    #[cfg(target_arch = "x86_64")]
    if let (true, Some(x)) = (wide, row.get(b * BLOCK..(b + 1) * BLOCK))
        && (b + 1) * BLOCK <= k
    {
        // SAFETY: the level says what the processor has; the block has 32 values.
        return unsafe { scaled_wide(x.as_ptr()) };
    }
    let _ = wide;
    let x = block(row, col, k, b);
    let (scale, inverse) = channel_scale(largest(&x));
    let (four, sum) = round_finite(&x, inverse);
    (scale, four, sum)
}

/// The same in a third of the time, to the bit.
///
/// # Safety
/// The processor has the instructions, and 32 values can be read.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline]
unsafe fn scaled_wide(x: *const f32) -> (f32, [i32; BLOCK / 4], [i32; 2]) {
    use std::arch::x86_64::*;
    // SAFETY: by the caller's promise; the words hold 32 bytes.
    unsafe {
        let (a, b) = (_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16)));
        let magnitude = |x| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
        let most = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(a), magnitude(b)));
        let (scale, inverse) = channel_scale(most);
        if inverse == 0.0 {
            return (scale, [0; BLOCK / 4], [0; 2]);
        }
        let bytes = |x| _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse))));
        let q = _mm256_set_m128i(bytes(b), bytes(a));
        let mut words = [0; BLOCK / 4];
        _mm256_storeu_si256(words.as_mut_ptr().cast(), q);
        // Sums of eight bytes without a sign, so 128 is added to each of sixteen.
        let eights = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
        let sum = |x| (_mm_extract_epi64::<0>(x) + _mm_extract_epi64::<1>(x)) as i32 - 16 * 128;
        let sums = [sum(_mm256_castsi256_si128(eights)), sum(_mm256_extracti128_si256::<1>(eights))];
        (scale, words, sums)
    }
}

/// A group of `rows` rows, as `words(kind, rows, k)` words.
#[inline(always)]
fn group_body(kind: Kind, rows: usize, k: usize, x: &[f32], at: Matrix, out: &mut [i32]) {
    let (count, format) = (blocks(k), kind.format);
    let (zero, halves) = (format.zero(), format.scales());
    let wide = at.col == 1 && level() == Level::Avx512;
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
            let (scale, four, sum) = scaled(row, at.col, k, b, wide);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn wide_blocks_are_the_same() {
        if level() < Level::Avx512 {
            return println!("skipped: no AVX-512");
        }
        for seed in 0..3000u32 {
            let size = 10f32.powi(seed as i32 % 80 - 42);
            let mut x: Vec<f32> = (0..BLOCK as u32)
                .map(|i| ((seed * 32 + i).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
                // Halves of steps are ties.
                .map(|v| if seed % 3 == 0 { (v * 254.0).round() / 254.0 } else { v } * size)
                .collect();
            match seed % 50 {
                0 => x[7] = f32::NAN,
                1 => x[31] = f32::NEG_INFINITY,
                2 => x.fill(0.0),
                _ => {}
            }
            let (a, b) = (scaled(&x, 1, BLOCK, 0, true), scaled(&x, 1, BLOCK, 0, false));
            assert_eq!((a.0.to_bits(), a.1, a.2), (b.0.to_bits(), b.1, b.2), "{x:?}");
        }
    }
}
