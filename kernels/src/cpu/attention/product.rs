//! Matrix products of blocks that lie in cache: `C = A B` or `C += A B` on one thread.
//!
//! Every product of attention is of the form "broadcast an element of A, multiply two vectors of a
//! row of B": sums of a tile (12 x 32 with AVX-512) stay in registers while k runs. Operands were
//! packed for it (`cpu::pack`), with room behind them so that tiles may be too large: rows of
//! C are computed in thirds of a tile, columns in whole vectors.

use crate::cpu::simd::Level;
use crate::cpu::vector::{Shape, Vector, at_level};

/// The left operand: row `i` of the tile from row `m` at `p` is `data[m / rows * next + i * ROW + p * col]`,
/// where `rows` are those of a tile and `ROW` is known to the compiler.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, const ROW: usize> {
    pub data: &'a [f32],
    /// Between tiles.
    pub next: usize,
    /// Between columns.
    pub col: usize,
}

/// The right operand: column `j` of the two vectors from column `n` at `p` is
/// `data[n / width * next + p * row + j]`, where `width` is that of two vectors.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub data: &'a [f32],
    /// Between pairs of vectors.
    pub next: usize,
    /// Between rows.
    pub row: usize,
}

/// The operands by address.
#[derive(Clone, Copy)]
struct Product {
    size: (usize, usize, usize),
    a: *const f32,
    a_next: usize,
    a_col: usize,
    b: *const f32,
    b_next: usize,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
}

/// `M` rows and `N` vectors of C.
///
/// # Safety
/// The level's instructions exist, and the operands lie in memory.
#[inline(always)]
unsafe fn tile<V: Vector, const ROW: usize, const M: usize, const N: usize>(
    x: &Product,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut acc = [[V::splat(0.0); N]; M];
        if x.add {
            for m in 0..M {
                for n in 0..N {
                    acc[m][n] = V::load(c.add(m * x.c_row + n * V::LANES));
                }
            }
        }
        for _ in 0..x.size.2 {
            let mut row = [V::splat(0.0); N];
            for n in 0..N {
                row[n] = V::load(b.add(n * V::LANES));
            }
            for m in 0..M {
                let a = V::splat(*a.add(m * ROW));
                for n in 0..N {
                    acc[m][n] = a.fma(row[n], acc[m][n]);
                }
            }
            a = a.wrapping_add(x.a_col);
            b = b.wrapping_add(x.b_row);
        }
        for m in 0..M {
            for n in 0..N {
                acc[m][n].store(c.add(m * x.c_row + n * V::LANES));
            }
        }
    }
}

/// All rows of `N` vectors.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn strip<V: Vector, const ROW: usize, const N: usize>(x: &Product, b: *const f32, c: *mut f32) {
    let (mut i, mut a, mut c) = (0, x.a, c);
    // SAFETY: rows lie below `m`, rounded up to the third of a tile.
    unsafe {
        while i < x.size.0 {
            let left = x.size.0 - i;
            let thirds = left.div_ceil(V::ROWS / 3);
            // Literals, for the compiler must know how many sums there are.
            if V::WIDE {
                match thirds {
                    1 => tile::<V, ROW, 4, N>(x, a, b, c),
                    2 => tile::<V, ROW, 8, N>(x, a, b, c),
                    _ => tile::<V, ROW, 12, N>(x, a, b, c),
                }
            } else {
                match thirds {
                    1 => tile::<V, ROW, 2, N>(x, a, b, c),
                    2 => tile::<V, ROW, 4, N>(x, a, b, c),
                    _ => tile::<V, ROW, 6, N>(x, a, b, c),
                }
            }
            i += V::ROWS;
            a = a.wrapping_add(x.a_next);
            c = c.wrapping_add(V::ROWS * x.c_row);
        }
    }
}

#[inline(always)]
unsafe fn body<V: Vector, const ROW: usize>(x: Product) {
    let (mut j, mut b) = (0, x.b);
    // SAFETY: by the caller's promise; columns lie below `n`, a multiple of a vector.
    unsafe {
        while j + 2 * V::LANES <= x.size.1 {
            strip::<V, ROW, 2>(&x, b, x.c.add(j));
            j += 2 * V::LANES;
            b = b.wrapping_add(x.b_next);
        }
        if j < x.size.1 {
            strip::<V, ROW, 1>(&x, b, x.c.add(j));
        }
    }
}
at_level! {
    unsafe fn run[const ROW](x: Product) = body;
}

/// `C[m n] = A[m k] B[k n]`, added to C if `add`. `n` is a multiple of a vector, and C has room for
/// whole thirds of a tile's rows.
///
/// # Panics
/// When a matrix reaches beyond its slice.
pub(super) fn product<const ROW: usize>(
    level: Level,
    (m, n, k): (usize, usize, usize),
    a: Left<ROW>,
    b: Right,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    let shape = Shape::of(level);
    if m == 0 || n == 0 || (k == 0 && add) {
        return;
    }
    let rows = |m: usize| m.next_multiple_of(shape.rows / 3);
    // The last tile or pair reaches farthest, or the one before it, which is whole.
    let reach = |count: usize, whole: usize, next: usize, step: usize| {
        let (before, rest) = ((count - 1) / whole, (count - 1) % whole);
        let last = before * next + rest * step;
        if before == 0 { last } else { last.max((before - 1) * next + (whole - 1) * step) }
    };
    let last = k.saturating_sub(1);
    let fits = n.is_multiple_of(shape.lanes)
        && (k == 0 || reach(rows(m), shape.rows, a.next, ROW) + last * a.col < a.data.len())
        && (k == 0 || reach(n, 2 * shape.lanes, b.next, 1) + last * b.row < b.data.len())
        && (rows(m) - 1) * c_row + n <= c.len();
    assert!(fits, "a matrix is cut off");
    let x = Product {
        size: (m, n, k),
        a: a.data.as_ptr(),
        a_next: a.next,
        a_col: a.col,
        b: b.data.as_ptr(),
        b_next: b.next,
        b_row: b.row,
        c: c.as_mut_ptr(),
        c_row,
        add,
    };
    // SAFETY: what is read and written lies in the slices, as was checked.
    unsafe { run::<ROW>(level, x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::levels;

    #[test]
    fn all_sizes_agree_with_the_definition() {
        const ROW: usize = 40;
        for level in levels() {
            let Shape { lanes, rows } = Shape::of(level);
            for (m, n, k) in
                [(1usize, 1, 1), (4, 3, 5), (7, 1, 3), (5, 2, 9), (2, 5, 0), (9, 2, 2), (13, 4, 7), (29, 3, 33)]
            {
                let (n, whole) = (n * lanes, m.next_multiple_of(rows));
                let value = |i: usize, p: usize| ((i * 7 + p * 5) % 13) as f32 - 6.0;
                let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
                let want = |i: usize, j: usize| (0..k).map(|p| value(i, p) * b[p * n + j]).sum::<f32>();
                let b = Right { data: &b, next: 2 * lanes, row: n };
                let (mut broad, mut panels) = (vec![0.0; whole * ROW], vec![0.0; whole * k]);
                for i in 0..m {
                    for p in 0..k {
                        broad[i * ROW + p] = value(i, p);
                        panels[i / rows * rows * k + p * rows + i % rows] = value(i, p);
                    }
                }
                for add in [false, true] {
                    let mut c = [vec![1.0; whole * n], vec![1.0; whole * n]];
                    let a = Left::<ROW> { data: &broad, next: rows * ROW, col: 1 };
                    product(level, (m, n, k), a, b, &mut c[0], n, add);
                    let a = Left::<1> { data: &panels, next: rows * k, col: rows };
                    product(level, (m, n, k), a, b, &mut c[1], n, add);
                    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                        let want = want(i, j) + add as u8 as f32;
                        assert_eq!([c[0][i * n + j], c[1][i * n + j]], [want; 2], "{level:?} {m} {n} {k} at {i} {j}");
                    }
                }
            }
        }
    }
}
