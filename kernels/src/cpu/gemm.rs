//! Matrix products: `C = A B (+ C)` for any strides, over the `matrixmultiply` crate, which
//! chooses AVX-512, AVX2 or plain micro-kernels at run time. Threads share the rows or the
//! columns of C.

use crate::pool::Pool;

/// A matrix in a slice: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub struct Matrix {
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

/// The largest index that a matrix of `m` by `n` touches, plus one.
pub(super) fn reach(m: usize, n: usize, s: Matrix) -> usize {
    if m == 0 || n == 0 { 0 } else { (m - 1) * s.row + (n - 1) * s.col + 1 }
}

struct Out(*mut f32);
// SAFETY: threads write disjoint blocks of C.
unsafe impl Sync for Out {}
impl Out {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

/// `c[m n] = a[m k] b[k n]`, added to `c` when `accumulate` is set.
///
/// # Panics
/// When a matrix reaches beyond its slice, or two elements of `c` share a place.
#[allow(clippy::too_many_arguments)]
pub fn gemm(
    pool: &Pool,
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    sa: Matrix,
    b: &[f32],
    sb: Matrix,
    c: &mut [f32],
    sc: Matrix,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        reach(m, k, sa) <= a.len() && reach(k, n, sb) <= b.len() && reach(m, n, sc) <= c.len(),
        "a matrix is cut off"
    );
    let distinct = (m <= 1 || sc.row > 0) && (n <= 1 || sc.col > 0);
    let nested = m <= 1 || n <= 1 || sc.row > (n - 1) * sc.col || sc.col > (m - 1) * sc.row;
    assert!(distinct && nested, "elements of a result share a place");
    // SAFETY: the assertions above bound every access, and `c` is borrowed mutably.
    unsafe { gemm_raw(pool, (m, n, k), a, sa, b, sb, c.as_mut_ptr(), sc, accumulate) }
}

/// The same on a bare result.
///
/// # Safety
/// All elements of the three matrices must lie in their allocations, and those of `c` must be
/// distinct and touched by nobody else.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn gemm_raw(
    pool: &Pool,
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    sa: Matrix,
    b: &[f32],
    sb: Matrix,
    c: *mut f32,
    sc: Matrix,
    accumulate: bool,
) {
    debug_assert!(reach(m, k, sa) <= a.len() && reach(k, n, sb) <= b.len());
    let beta = accumulate as u8 as f32;
    let out = Out(c);
    // A block's work should outweigh starting it: about 64 thousand multiply-adds.
    let threads = pool.threads().min((m * n * k / 65_536).max(1));
    let by_rows = m >= n;
    // Blocks are multiples of the micro-kernel's 16 rows or columns.
    let block = (if by_rows { m } else { n }).div_ceil(threads).next_multiple_of(16);
    let blocks = (if by_rows { m } else { n }).div_ceil(block);
    pool.run(blocks, &|i| {
        let first = i * block;
        let (m0, mb, n0, nb) =
            if by_rows { (first, block.min(m - first), 0, n) } else { (0, m, first, block.min(n - first)) };
        // SAFETY: by the caller's promise; blocks of C are disjoint.
        unsafe {
            matrixmultiply::sgemm(
                mb,
                k,
                nb,
                1.0,
                a.as_ptr().wrapping_add(m0 * sa.row),
                sa.row as isize,
                sa.col as isize,
                b.as_ptr().wrapping_add(n0 * sb.col),
                sb.row as isize,
                sb.col as isize,
                beta,
                out.get().add(m0 * sc.row + n0 * sc.col),
                sc.row as isize,
                sc.col as isize,
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layouts_agree_with_the_definition() {
        let pool = Pool::new(2);
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (64, 33, 20), (130, 70, 90), (5, 200, 100), (2, 3, 0), (0, 3, 2)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
            for (ta, tb, tc) in [(false, false, false), (true, false, true), (false, true, false), (true, true, true)] {
                let lay = |rows: usize, cols: usize, t: bool| {
                    if t { Matrix { row: 1, col: rows } } else { Matrix { row: cols, col: 1 } }
                };
                let (sa, sb, sc) = (lay(m, k, ta), lay(k, n, tb), lay(m, n, tc));
                let mut c = vec![1.0; m * n];
                gemm(&pool, (m, n, k), &a, sa, &b, sb, &mut c, sc, true);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..k).map(|l| a[i * sa.row + l * sa.col] * b[l * sb.row + j * sb.col]).sum();
                        assert_eq!(c[i * sc.row + j * sc.col], sum + 1.0);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "cut off")]
    fn short_slices_are_refused() {
        let s = Matrix { row: 4, col: 1 };
        gemm(&Pool::new(1), (4, 4, 4), &[0.0; 15], s, &[0.0; 16], s, &mut [0.0; 16], s, false);
    }
}
