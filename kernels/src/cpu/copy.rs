//! Copies between strided and contiguous layouts.
//!
//! Where neighbours of the source are no neighbours in the copy (a transposition), tiles are copied
//! that a cache holds: a line of either side is touched once.

use super::parts::Parts;
use crate::memory::Plain;
use crate::pool::Pool;

/// Dimensions joined where the source allows it: sizes and source strides, slowest first, at
/// least one dimension.
pub fn collapse(sizes: &[usize], strides: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut out: (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    for (n, s) in sizes.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match (out.0.last_mut(), out.1.last_mut()) {
            (Some(size), Some(stride)) if *stride == *s * *n => {
                *size *= n;
                *stride = *s;
            }
            _ => {
                out.0.push(*n);
                out.1.push(*s);
            }
        }
    }
    if out.0.is_empty() {
        out = (vec![1], vec![1]);
    }
    out
}

/// Copies `src`, seen through `sizes` and `strides` from `offset`, to contiguous `dst`. Sizes
/// and strides should be [`collapse`]d.
///
/// # Panics
/// When the view reaches beyond `src` or does not fill `dst`.
pub fn gather_view<T: Plain>(pool: &Pool, src: &[T], offset: usize, sizes: &[usize], strides: &[usize], dst: &mut [T]) {
    let Some((inner, outer)) = sizes.split_last() else { return };
    let step = strides[sizes.len() - 1];
    if dst.is_empty() || *inner == 0 {
        return;
    }
    assert_eq!(sizes.iter().product::<usize>(), dst.len(), "a view fills its copy");
    let across = (0..outer.len()).find(|d| strides[*d] == 1 && sizes[*d] >= LINE);
    if let Some(across) = across
        && step > 1
        && *inner >= LINE / 2
    {
        return transpose(pool, src, offset, sizes, strides, across, dst);
    }
    let least = (4096 / inner).max(1);
    pool.rows(dst, *inner, least, |first, block| {
        for (r, row) in block.chunks_mut(*inner).enumerate() {
            let mut rest = first + r;
            let mut start = offset;
            for (n, s) in outer.iter().zip(strides).rev() {
                start += rest % n * s;
                rest /= n;
            }
            match step {
                0 => row.fill(src[start]),
                1 => row.copy_from_slice(&src[start..start + inner]),
                _ => {
                    let strided = src[start..].iter().step_by(step);
                    row.iter_mut().zip(strided).for_each(|(d, s)| *d = *s);
                }
            }
        }
    });
}

/// Values of a tile's side: a line of four-byte values.
const LINE: usize = 16;
/// Values of the side of a block of tiles.
const BLOCK: usize = 64;

/// [`gather_view`] where dimension `across` is the one along which source values are neighbours.
fn transpose<T: Plain>(
    pool: &Pool,
    src: &[T],
    offset: usize,
    sizes: &[usize],
    strides: &[usize],
    across: usize,
    dst: &mut [T],
) {
    let last = sizes.len() - 1;
    let (rows, cols, step) = (sizes[across], sizes[last], strides[last]);
    let pitch: usize = sizes[across + 1..].iter().product();
    let (down, along) = (rows.div_ceil(BLOCK), cols.div_ceil(BLOCK));
    let tasks = sizes.iter().product::<usize>() / (rows * cols) * down * along;
    let each = (16_384 / (BLOCK.min(rows) * BLOCK.min(cols))).max(1);
    let dst = Parts::new(dst);
    pool.run(tasks.div_ceil(each), &|t| {
        for task in t * each..((t + 1) * each).min(tasks) {
            let (i, j) = (task / along % down * BLOCK, task % along * BLOCK);
            let (mut rest, mut from, mut to, mut size) = (task / (along * down), offset, 0, cols);
            for d in (0..last).rev() {
                if d != across {
                    from += rest % sizes[d] * strides[d];
                    to += rest % sizes[d] * size;
                    rest /= sizes[d];
                }
                size *= sizes[d];
            }
            let (high, wide) = (BLOCK.min(rows - i), BLOCK.min(cols - j));
            block(&src[from + i + j * step..], step, (high, wide), &dst, to + i * pitch + j, pitch);
        }
    });
}

/// `dst[to + r * pitch + c] = src[c * step + r]` for a block, tile by tile.
fn block<T: Plain>(src: &[T], step: usize, (high, wide): (usize, usize), dst: &Parts<T>, to: usize, pitch: usize) {
    for j in (0..wide).step_by(LINE) {
        for i in (0..high).step_by(LINE) {
            let (h, w) = (LINE.min(high - i), LINE.min(wide - j));
            let src = &src[j * step + i..];
            if h < LINE || w < LINE {
                for r in 0..h {
                    // SAFETY: blocks are disjoint, and so are the rows of a tile.
                    let row = unsafe { dst.get(to + (i + r) * pitch + j, w) };
                    for (c, v) in row.iter_mut().enumerate() {
                        *v = src[c * step + r];
                    }
                }
                continue;
            }
            let mut tile = [[src[0]; LINE]; LINE];
            for (c, line) in tile.iter_mut().enumerate() {
                *line = src[c * step..][..LINE].try_into().expect("a whole line");
            }
            for r in 0..LINE {
                let line: [T; LINE] = std::array::from_fn(|c| tile[c][r]);
                // SAFETY: as above.
                unsafe { dst.get(to + (i + r) * pitch + j, LINE) }.copy_from_slice(&line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_every_kind() {
        let pool = Pool::new(2);
        let src: Vec<i32> = (0..40_000).collect();
        let cases: &[(&[usize], &[usize], usize)] = &[
            (&[4, 6], &[6, 1], 0),
            (&[6, 4], &[1, 6], 0),
            (&[2, 3], &[6, 2], 1),
            (&[3, 5], &[1, 0], 2),
            (&[2, 0], &[1, 1], 0),
            (&[], &[], 3),
            (&[100, 130], &[1, 100], 5),
            (&[33, 16], &[1, 40], 0),
            (&[3, 70, 5, 20], &[7000, 1, 1400, 70], 2),
            (&[70, 3, 20], &[1, 1400, 70], 0),
            (&[2, 64, 3, 64], &[12_288, 64, 4096, 1], 0),
            (&[16, 2, 64], &[1, 2048, 32], 1),
        ];
        for (sizes, strides, offset) in cases {
            let (s, t) = collapse(sizes, strides);
            let n: usize = sizes.iter().product();
            let mut dst = vec![0; n];
            gather_view(&pool, &src, *offset, &s, &t, &mut dst);
            for (i, v) in dst.iter().enumerate() {
                let (mut rest, mut at) = (i, *offset);
                for (n, s) in sizes.iter().zip(*strides).rev() {
                    at += rest % n * s;
                    rest /= n;
                }
                assert_eq!(*v, src[at]);
            }
        }
    }
}
