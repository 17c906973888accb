//! Operands laid out for [`super::product`]: tiles read memory from front to back, whatever the
//! strides of the tensors, whose rows, a power of two apart, would push each other out of cache.

/// `count` rows of `width` features in panels of `wide` rows: feature `f` of row `j` is at
/// `j / wide * wide * width + f * wide + j % wide`, times `scale`. Row `j` starts at `at(j)`.
/// Places behind the last row keep what they hold.
pub(super) fn panels(
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
            let rows = [0, 1, 2, 3].map(|i| &x[at(j + i)..][..width]);
            four(rows, wide, scale, &mut out[first..]);
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
        let block = rows.map(|r| [r[f], r[f + 1], r[f + 2], r[f + 3]].map(|x| scale * x));
        for i in 0..4 {
            let column = [block[0][i], block[1][i], block[2][i], block[3][i]];
            out[(f + i) * wide..][..4].copy_from_slice(&column);
        }
    }
    for f in whole..width {
        for i in 0..4 {
            out[f * wide + i] = scale * rows[i][f];
        }
    }
}

/// `count` rows of `width` features, `row` apart, times `scale`; zeros behind each row.
pub(super) fn rows(
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
        let x = &x[at(j)..][..width];
        out[..width].iter_mut().zip(x).for_each(|(o, x)| *o = scale * x);
        out[width..].fill(0.0);
    }
}
