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

/// The operands of a product, whose sizes were compared with `(m, n, k)`.
#[derive(Clone, Copy)]
struct Product {
    size: (usize, usize, usize),
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
}

/// `M` rows from `i` and `N` columns from `j` of C, in registers.
///
/// # Safety
/// The tile lies within the product.
#[inline(always)]
unsafe fn tile<const FUSED: bool, const M: usize, const N: usize>(x: &Product, i: usize, j: usize) {
    let mut acc = [[0f32; N]; M];
    // SAFETY: the tile lies within C, A's rows and B's columns; loads and stores are unaligned.
    unsafe {
        for m in 0..M {
            acc[m] = x.c.add((i + m) * x.c_row + j).cast::<[f32; N]>().read_unaligned();
        }
        for p in 0..x.size.2 {
            let b = x.b.add(p * x.b_row + j).cast::<[f32; N]>().read_unaligned();
            for m in 0..M {
                let a = *x.a.add((i + m) * x.a_row + p * x.a_col);
                for n in 0..N {
                    acc[m][n] = fma::<FUSED>(a, b[n], acc[m][n]);
                }
            }
        }
        for m in 0..M {
            x.c.add((i + m) * x.c_row + j).cast::<[f32; N]>().write_unaligned(acc[m]);
        }
    }
}

/// All rows of `N` columns from `j`.
///
/// # Safety
/// The columns lie within the product.
#[inline(always)]
unsafe fn strip<const FUSED: bool, const M: usize, const N: usize>(x: &Product, j: usize) {
    let m = x.size.0;
    let mut i = 0;
    // SAFETY: rows lie below `m`.
    unsafe {
        while i + M <= m {
            tile::<FUSED, M, N>(x, i, j);
            i += M;
        }
        while i + 4 <= m {
            tile::<FUSED, 4, N>(x, i, j);
            i += 4;
        }
        while i < m {
            tile::<FUSED, 1, N>(x, i, j);
            i += 1;
        }
    }
}

#[inline(always)]
fn body<const FUSED: bool, const M: usize, const N: usize>(x: Product) {
    let n = x.size.1;
    let mut j = 0;
    // SAFETY: `add_product` has compared the slices with the sizes; columns lie below `n`.
    unsafe {
        while j + N <= n {
            strip::<FUSED, M, N>(&x, j);
            j += N;
        }
        while j + 16 <= n {
            strip::<FUSED, M, 16>(&x, j);
            j += 16;
        }
        if j + 8 <= n {
            strip::<FUSED, M, 8>(&x, j);
            j += 8;
        }
        while j < n {
            strip::<FUSED, M, 1>(&x, j);
            j += 1;
        }
    }
}

// The accumulators fill half of the registers that each level has.
crate::dispatch! {
    fn with_32_registers(x: Product) = body::<true, 8, 32>;
}
crate::dispatch! {
    fn with_16_registers(x: Product) = body::<true, 4, 16>;
}

/// `C[m n] += A[m k] B[k n]` for `size = (m, n, k)`.
///
/// # Panics
/// When a matrix reaches beyond its slice.
pub(super) fn add_product(size: (usize, usize, usize), a: Block, b: &[f32], b_row: usize, c: &mut [f32], c_row: usize) {
    let (m, n, k) = size;
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let fits = (m - 1) * a.row + (k - 1) * a.col < a.data.len()
        && (k - 1) * b_row + n <= b.len()
        && (m - 1) * c_row + n <= c.len();
    assert!(fits, "a matrix is cut off");
    let x = Product {
        size,
        a: a.data.as_ptr(),
        a_row: a.row,
        a_col: a.col,
        b: b.as_ptr(),
        b_row,
        c: c.as_mut_ptr(),
        c_row,
    };
    match level() {
        Level::Avx512 => with_32_registers(x),
        Level::Avx2 => with_16_registers(x),
        // Without the instruction a fused multiply-add is a call of the library.
        Level::Base => body::<false, 4, 8>(x),
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
