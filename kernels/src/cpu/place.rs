//! Copies along one axis of `[outer, n, inner]`: blocks, picked lines, windows.

use crate::memory::Plain;
use crate::pool::Pool;

/// The least number of values worth a thread of its own.
const GRAIN: usize = 8192;

/// Copies `outer` rows of `row` values to `dst`, whose rows are `pitch` long, from `offset` on.
///
/// # Panics
/// When the rows do not fit.
pub fn place<T: Plain>(pool: &Pool, src: &[T], row: usize, dst: &mut [T], pitch: usize, offset: usize) {
    if src.is_empty() {
        return;
    }
    assert!(offset + row <= pitch && src.len() / row == dst.len() / pitch, "a block fits");
    if dst.len() == pitch {
        return pool.rows(&mut dst[offset..offset + row], 1, GRAIN, |first, block| {
            block.copy_from_slice(&src[first..first + block.len()]);
        });
    }
    pool.rows(dst, pitch, (GRAIN / row).max(1), |first, block| {
        for (row, dst) in src[first * row..].chunks_exact(row).zip(block.chunks_exact_mut(pitch)) {
            dst[offset..offset + row.len()].copy_from_slice(row);
        }
    });
}

/// [`place`] into rows that are otherwise `fill`.
///
/// # Panics
/// When the rows do not fit.
pub fn pad<T: Plain>(pool: &Pool, src: &[T], row: usize, fill: T, dst: &mut [T], pitch: usize, offset: usize) {
    if src.is_empty() {
        return dst.fill(fill);
    }
    assert!(offset + row <= pitch && src.len() / row == dst.len() / pitch, "a block fits");
    if dst.len() == pitch {
        // One row: the copy is shared by the threads.
        dst[..offset].fill(fill);
        dst[offset + row..].fill(fill);
        return place(pool, src, row, dst, pitch, offset);
    }
    pool.rows(dst, pitch, (GRAIN / pitch).max(1), |first, block| {
        for (row, dst) in src[first * row..].chunks_exact(row).zip(block.chunks_exact_mut(pitch)) {
            let (before, rest) = dst.split_at_mut(offset);
            let (middle, after) = rest.split_at_mut(row.len());
            before.fill(fill);
            middle.copy_from_slice(row);
            after.fill(fill);
        }
    });
}

/// `row` values from `offset` on of each row of `src`, whose rows are `pitch` long: the inverse
/// of [`place`].
///
/// # Panics
/// When the rows do not fit.
pub fn cut<T: Plain>(pool: &Pool, src: &[T], pitch: usize, offset: usize, dst: &mut [T], row: usize) {
    if dst.is_empty() {
        return;
    }
    assert!(offset + row <= pitch && src.len() / pitch == dst.len() / row, "a block fits");
    pool.rows(dst, row, (GRAIN / row).max(1), |first, block| {
        for (src, dst) in src[first * pitch..].chunks_exact(pitch).zip(block.chunks_exact_mut(row)) {
            dst.copy_from_slice(&src[offset..offset + row]);
        }
    });
}

/// `y[o, i, :] = x[o, source(i), :]`, or `fill` where there is no source; `x` is `[outer, n,
/// inner]`, `y` is `[outer, m, inner]`.
///
/// # Panics
/// When a source lies beyond `n`.
pub fn pick<T: Plain>(
    pool: &Pool,
    x: &[T],
    (n, m, inner): (usize, usize, usize),
    source: impl Fn(usize) -> Option<usize> + Sync,
    fill: T,
    y: &mut [T],
) {
    if y.is_empty() {
        return;
    }
    pool.rows(y, inner, (GRAIN / inner).max(1), |first, block| {
        for (r, row) in block.chunks_exact_mut(inner).enumerate() {
            let (o, i) = ((first + r) / m, (first + r) % m);
            match source(i) {
                Some(i) => {
                    assert!(i < n, "a source lies in the axis");
                    row.copy_from_slice(&x[(o * n + i) * inner..][..inner]);
                }
                None => row.fill(fill),
            }
        }
    });
}

/// Windows along the middle of `[outer, n, inner]`.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// How many values the axis has.
    pub n: usize,
    /// How many windows.
    pub windows: usize,
    /// How many places in each.
    pub kernel: usize,
    /// The distance between windows.
    pub stride: usize,
    /// The distance between places.
    pub dilation: usize,
    /// The values after the axis.
    pub inner: usize,
}

/// `y[o, w, k, :] = x[o, w * stride + k * dilation, :]`
///
/// # Panics
/// When the windows reach beyond the axis.
pub fn unfold<T: Plain>(pool: &Pool, s: Windows, x: &[T], y: &mut [T]) {
    let row = s.kernel * s.inner;
    if y.is_empty() {
        return;
    }
    pool.rows(y, row, (GRAIN / row).max(1), |first, block| {
        for (r, window) in block.chunks_exact_mut(row).enumerate() {
            let (o, w) = ((first + r) / s.windows, (first + r) % s.windows);
            let x = &x[o * s.n * s.inner..][..s.n * s.inner];
            if s.dilation == 1 {
                window.copy_from_slice(&x[w * s.stride * s.inner..][..row]);
                continue;
            }
            for (k, place) in window.chunks_exact_mut(s.inner).enumerate() {
                place.copy_from_slice(&x[(w * s.stride + k * s.dilation) * s.inner..][..s.inner]);
            }
        }
    });
}

/// `y[o, i, :]` is the sum of `x[o, w, k, :]` over all places with `w * stride + k * dilation =
/// i`, in the order of windows.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn fold(pool: &Pool, s: Windows, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    pool.rows(y, s.inner, (GRAIN / s.inner).max(1), |first, block| {
        for (r, out) in block.chunks_exact_mut(s.inner).enumerate() {
            let (o, i) = ((first + r) / s.n, (first + r) % s.n);
            out.fill(0.0);
            if s.kernel == 0 {
                continue;
            }
            // The first window that reaches up to i, and the last that does not begin after it.
            let reach = (s.kernel - 1) * s.dilation;
            let from = i.saturating_sub(reach).div_ceil(s.stride);
            for w in from..(i / s.stride + 1).min(s.windows) {
                let distance = i - w * s.stride;
                if distance.is_multiple_of(s.dilation) {
                    let place = (o * s.windows + w) * s.kernel + distance / s.dilation;
                    out.iter_mut().zip(&x[place * s.inner..]).for_each(|(y, v)| *y += v);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_placed_and_cut() {
        let pool = Pool::new(2);
        for (outer, row, pitch, offset) in
            [(1, 3, 5, 1), (4, 2, 7, 5), (3, 1, 1, 0), (1, 20_000, 30_000, 77), (0, 2, 3, 1)]
        {
            let src: Vec<i32> = (0..(outer * row) as i32).collect();
            let mut dst = vec![-1; outer * pitch];
            place(&pool, &src, row, &mut dst, pitch, offset);
            for (i, v) in dst.iter().enumerate() {
                let (o, k) = (i / pitch, i % pitch);
                let inside = (offset..offset + row).contains(&k);
                assert_eq!(*v, if inside { (o * row + k - offset) as i32 } else { -1 });
            }
            let mut padded = vec![5; dst.len()];
            pad(&pool, &src, row, -1, &mut padded, pitch, offset);
            assert_eq!(padded, dst);
            let mut back = vec![0; src.len()];
            cut(&pool, &dst, pitch, offset, &mut back, row);
            assert_eq!(back, src);
        }
    }

    #[test]
    fn lines_are_picked_or_filled() {
        let pool = Pool::new(2);
        let x: Vec<i32> = (0..12).collect();
        let mut y = [0; 16];
        pick(&pool, &x, (3, 4, 2), |i| i.checked_sub(1).map(|i| 2 - i), -1, &mut y);
        assert_eq!(y, [-1, -1, 4, 5, 2, 3, 0, 1, -1, -1, 10, 11, 8, 9, 6, 7]);
    }

    #[test]
    fn windows_and_their_sums() {
        let pool = Pool::new(2);
        for (outer, n, kernel, stride, dilation, inner) in
            [(1, 9, 3, 2, 1, 1), (2, 9, 3, 1, 2, 3), (1, 7, 2, 3, 3, 2), (3, 5, 1, 1, 1, 1), (1, 400, 40, 16, 1, 1)]
        {
            let windows = (n - (kernel - 1) * dilation - 1) / stride + 1;
            let s = Windows { n, windows, kernel, stride, dilation, inner };
            let x: Vec<f32> = (0..outer * n * inner).map(|i| i as f32).collect();
            let mut y = vec![0.0; outer * windows * kernel * inner];
            unfold(&pool, s, &x, &mut y);
            let mut back = vec![9.0; x.len()];
            fold(&pool, s, &y, &mut back);
            let mut expected = vec![0.0; x.len()];
            for (i, v) in y.iter().enumerate() {
                let (c, rest) = (i % inner, i / inner);
                let (k, rest) = (rest % kernel, rest / kernel);
                let (w, o) = (rest % windows, rest / windows);
                let from = (o * n + w * stride + k * dilation) * inner + c;
                assert_eq!(*v, x[from]);
                expected[from] += v;
            }
            assert_eq!(back, expected);
        }
    }
}
