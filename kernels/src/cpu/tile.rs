//! A matrix product for blocks that stay in cache: `C += A B` on one thread, with `A` at any
//! strides (its elements are broadcast) and unit distance along the rows of `B` and `C`.
//!
//! Large products go through [`super::gemm`], which packs; here packing would cost as much as the
//! product.

use super::simd::{Level, level};

/// A block of a matrix: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

#[inline(always)]
fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `M` rows and `N` columns of C in registers.
#[inline(always)]
fn tile<const FUSED: bool, const M: usize, const N: usize>(
    k: usize,
    a: Block,
    i: usize,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut acc = [[0f32; N]; M];
    for (m, acc) in acc.iter_mut().enumerate() {
        acc.copy_from_slice(&c[m * c_row..m * c_row + N]);
    }
    for p in 0..k {
        let b: &[f32; N] = b[p * b_row..p * b_row + N].try_into().expect("N values");
        for m in 0..M {
            let x = a.data[(i + m) * a.row + p * a.col];
            for n in 0..N {
                acc[m][n] = fma::<FUSED>(x, b[n], acc[m][n]);
            }
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        c[m * c_row..m * c_row + N].copy_from_slice(acc);
    }
}

/// All rows of `N` columns.
#[inline(always)]
fn strip<const FUSED: bool, const N: usize>(
    (m, k): (usize, usize),
    a: Block,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let mut i = 0;
    while i + 4 <= m {
        tile::<FUSED, 4, N>(k, a, i, b, b_row, &mut c[i * c_row..], c_row);
        i += 4;
    }
    while i < m {
        tile::<FUSED, 1, N>(k, a, i, b, b_row, &mut c[i * c_row..], c_row);
        i += 1;
    }
}

#[inline(always)]
fn body<const FUSED: bool>(
    size: (usize, usize, usize),
    a: Block,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
) {
    let (m, n, k) = size;
    let mut j = 0;
    while j + 32 <= n {
        strip::<FUSED, 32>((m, k), a, &b[j..], b_row, &mut c[j..], c_row);
        j += 32;
    }
    if j + 16 <= n {
        strip::<FUSED, 16>((m, k), a, &b[j..], b_row, &mut c[j..], c_row);
        j += 16;
    }
    if j + 8 <= n {
        strip::<FUSED, 8>((m, k), a, &b[j..], b_row, &mut c[j..], c_row);
        j += 8;
    }
    while j < n {
        strip::<FUSED, 1>((m, k), a, &b[j..], b_row, &mut c[j..], c_row);
        j += 1;
    }
}

crate::dispatch! {
    fn fused(size: (usize, usize, usize), a: Block<'_>, b: &[f32], b_row: usize, c: &mut [f32], c_row: usize) = body::<true>;
}

/// `C[m n] += A[m k] B[k n]` for `size = (m, n, k)`.
pub(super) fn add_product(size: (usize, usize, usize), a: Block, b: &[f32], b_row: usize, c: &mut [f32], c_row: usize) {
    if size.0 == 0 || size.1 == 0 || size.2 == 0 {
        return;
    }
    // Without the instruction a fused multiply-add is a call of the library.
    if level() == Level::Base {
        body::<false>(size, a, b, b_row, c, c_row);
    } else {
        fused(size, a, b, b_row, c, c_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes_agree_with_the_definition() {
        for (m, n, k) in [(1, 1, 1), (4, 32, 5), (7, 61, 3), (5, 17, 9), (2, 9, 0), (9, 40, 2)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
            for (row, col) in [(k, 1), (1, m)] {
                let mut c = vec![1.0; m * n];
                add_product((m, n, k), Block { data: &a, row, col }, &b, n, &mut c, n);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..k).map(|l| a[i * row + l * col] * b[l * n + j]).sum();
                        assert_eq!(c[i * n + j], sum + 1.0);
                    }
                }
            }
        }
    }
}
