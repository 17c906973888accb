//! Copies between strided and contiguous layouts.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_every_kind() {
        let pool = Pool::new(2);
        let src: Vec<i32> = (0..24).collect();
        let cases: &[(&[usize], &[usize], usize)] = &[
            (&[4, 6], &[6, 1], 0),
            (&[6, 4], &[1, 6], 0),
            (&[2, 3], &[6, 2], 1),
            (&[3, 5], &[1, 0], 2),
            (&[2, 0], &[1, 1], 0),
            (&[], &[], 3),
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
