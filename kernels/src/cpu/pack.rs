//! Operands laid out for tiles and lanes: tiles read memory from front to back, whatever the
//! strides of the tensors, whose rows, a power of two apart, would push each other out of cache.

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
    let mut j = 0;
    while j < count {
        let (out, first) = (&mut out[j / wide * wide * width..][..wide * width], j % wide);
        if first + 4 <= wide && j + 4 <= count {
            for next in (j + AHEAD..count).take(4) {
                prefetch(&x[at(next)..], width);
            }
            let row = |i: usize| &x[at(j + i)..][..width];
            four([row(0), row(1), row(2), row(3)], wide, scale, &mut out[first..]);
            j += 4;
        } else {
            let row = &x[at(j)..][..width];
            for f in 0..width {
                out[f * wide + first] = scale * row[f];
            }
            j += 1;
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
