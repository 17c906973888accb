//! Operands laid out for tiles and lanes: tiles read memory from front to back, whatever the
//! strides of the tensors, whose rows, a power of two apart, would push each other out of cache.

use super::simd::{Level, level};

/// `count` rows of `width` features in panels of `wide` rows: feature `f` of row `j` is at
/// `j / wide * wide * width + f * wide + j % wide`, times `scale`. Row `j` starts at `at(j)`.
/// Places behind the last row keep what they hold.
pub(crate) fn panels(
    x: &[f32],
    at: impl Fn(usize) -> usize,
    (count, width): (usize, usize),
    wide: usize,
    scale: f32,
    out: &mut [f32],
) {
    if width == 0 {
        return;
    }
    let level = level();
    let mut j = 0;
    while j < count {
        let (out, first) = (&mut out[j / wide * wide * width..][..wide * width], j % wide);
        let some = [8, 4].into_iter().find(|n| first + n <= wide && j + n <= count && (*n == 4 || level > Level::Base));
        for next in (j + AHEAD..count).take(some.unwrap_or(1)) {
            prefetch(&x[at(next)..], width);
        }
        let row = |i: usize| &x[at(j + i)..][..width];
        match some {
            #[cfg(target_arch = "x86_64")]
            Some(8) => {
                let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                // SAFETY: the level is the processor's.
                unsafe { x86::eight(rows, wide, scale, &mut out[first..]) };
            }
            Some(_) => four([row(0), row(1), row(2), row(3)], wide, scale, &mut out[first..]),
            None => {
                for (f, v) in row(0).iter().enumerate() {
                    out[f * wide + first] = scale * v;
                }
            }
        }
        j += some.unwrap_or(1);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Eight rows become eight columns, `wide` apart.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn eight(rows: [&[f32]; 8], wide: usize, scale: f32, out: &mut [f32]) {
        let width = rows[0].len();
        let whole = width / 4 * 4;
        assert!(rows.iter().all(|r| r.len() == width) && (width == 0 || (width - 1) * wide + 8 <= out.len()));
        let at = rows.map(|r| r.as_ptr());
        let by = _mm256_set1_ps(scale);
        for f in (0..whole).step_by(4) {
            // SAFETY: four values of each row from `f` on; columns were compared with `out`.
            unsafe {
                // Row `i` in the lower half, row `i + 4` in the upper.
                let mut a = [_mm256_setzero_ps(); 4];
                for i in 0..4 {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(at[i].add(f)));
                    a[i] = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(at[i + 4].add(f)));
                }
                let (b0, b1) = (_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
                let (b2, b3) = (_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
                let columns = [
                    _mm256_shuffle_ps::<0x44>(b0, b2),
                    _mm256_shuffle_ps::<0xee>(b0, b2),
                    _mm256_shuffle_ps::<0x44>(b1, b3),
                    _mm256_shuffle_ps::<0xee>(b1, b3),
                ];
                let out = out.as_mut_ptr().add(f * wide);
                for i in 0..4 {
                    _mm256_storeu_ps(out.add(i * wide), _mm256_mul_ps(by, columns[i]));
                }
            }
        }
        for f in whole..width {
            for i in 0..8 {
                out[f * wide + i] = scale * rows[i][f];
            }
        }
    }
}

/// Four rows become four columns, `wide` apart.
#[inline(always)]
fn four(rows: [&[f32]; 4], wide: usize, scale: f32, out: &mut [f32]) {
    let width = rows[0].len();
    let whole = width / 4 * 4;
    for f in (0..whole).step_by(4) {
        let [a, b, c, d] = rows;
        let block = [quad(a, f), quad(b, f), quad(c, f), quad(d, f)];
        let columns = transposed(block, scale);
        for i in 0..4 {
            out[(f + i) * wide..][..4].copy_from_slice(&columns[i]);
        }
    }
    for f in whole..width {
        for i in 0..4 {
            out[f * wide + i] = scale * rows[i][f];
        }
    }
}

#[inline(always)]
fn quad(row: &[f32], f: usize) -> [f32; 4] {
    let four = &row[f..f + 4];
    [four[0], four[1], four[2], four[3]]
}

/// The columns of four rows, scaled. Every x86-64 processor has the shuffles, which the compiler
/// does not find.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(rows: [[f32; 4]; 4], scale: f32) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of the target; loads and stores are unaligned, of four values.
    unsafe {
        let scale = _mm_set1_ps(scale);
        let mut a = _mm_mul_ps(scale, _mm_loadu_ps(rows[0].as_ptr()));
        let mut b = _mm_mul_ps(scale, _mm_loadu_ps(rows[1].as_ptr()));
        let mut c = _mm_mul_ps(scale, _mm_loadu_ps(rows[2].as_ptr()));
        let mut d = _mm_mul_ps(scale, _mm_loadu_ps(rows[3].as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        let mut columns = [[0.0; 4]; 4];
        _mm_storeu_ps(columns[0].as_mut_ptr(), a);
        _mm_storeu_ps(columns[1].as_mut_ptr(), b);
        _mm_storeu_ps(columns[2].as_mut_ptr(), c);
        _mm_storeu_ps(columns[3].as_mut_ptr(), d);
        columns
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transposed(rows: [[f32; 4]; 4], scale: f32) -> [[f32; 4]; 4] {
    let mut columns = [[0.0; 4]; 4];
    for i in 0..4 {
        for j in 0..4 {
            columns[i][j] = scale * rows[j][i];
        }
    }
    columns
}

/// `count` rows of `width` features, `row` apart, times `scale`; zeros behind each row.
pub(crate) fn rows(
    x: &[f32],
    at: impl Fn(usize) -> usize,
    (count, width): (usize, usize),
    row: usize,
    scale: f32,
    out: &mut [f32],
) {
    if width == 0 {
        return;
    }
    for (j, out) in out.chunks_exact_mut(row).take(count).enumerate() {
        if j + AHEAD < count {
            prefetch(&x[at(j + AHEAD)..], width);
        }
        scaled(&x[at(j)..][..width], scale, &mut out[..width]);
        out[width..].fill(0.0);
    }
}

#[inline(always)]
fn scaled_body(x: &[f32], scale: f32, out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = scale * x;
    }
}
crate::dispatch! {
    /// `out = scale x`
    pub(crate) fn scaled(x: &[f32], scale: f32, out: &mut [f32]) = scaled_body;
}

/// Rows that are asked for before they are read: heads lie next to each other, so the rows of one
/// are too far apart for the processor to guess.
pub(crate) const AHEAD: usize = 16;

/// Asks for the start of a row.
#[inline(always)]
pub(crate) fn prefetch(x: &[f32], width: usize) {
    #[cfg(target_arch = "x86_64")]
    for f in (0..width.min(x.len())).step_by(16) {
        use std::arch::x86_64::*;
        // SAFETY: SSE is part of the target; a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().add(f).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, width);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_value_where_it_is_looked_for() {
        for (count, width) in [(1usize, 1), (3, 5), (4, 4), (12, 8), (21, 17), (40, 64), (37, 0)] {
            for wide in [6, 8, 12, 16, 32] {
                let stride = width + 3;
                let x: Vec<f32> = (0..count * stride).map(|i| i as f32).collect();
                let mut out = vec![-1.0; count.next_multiple_of(wide) * width];
                panels(&x, |j| j * stride, (count, width), wide, 2.0, &mut out);
                for (j, f) in (0..count).flat_map(|j| (0..width).map(move |f| (j, f))) {
                    let found = out[j / wide * wide * width + f * wide + j % wide];
                    assert_eq!(found, 2.0 * (j * stride + f) as f32, "row {j}, feature {f}, panels of {wide}");
                }
                // What lies behind the last row is left alone.
                assert_eq!(out.iter().filter(|x| **x != -1.0).count(), count * width);
            }
        }
    }
}
