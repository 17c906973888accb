//! 6 rows by two vectors of 8: 12 accumulators, two rows of B and a broadcast fill 15 of the 16
//! registers.

use super::{Micro, Tile, fetch};
use std::arch::x86_64::*;

pub(super) static MICRO: Micro = Micro { mr: 6, nr: 16, lanes: 8, tile };

/// # Safety
/// As of [`Micro::tile`].
unsafe fn tile(t: &Tile) {
    macro_rules! heights {
        ($($h:literal)*) => {
            match (t.h, t.w > 8) {
                $(
                    // SAFETY: the caller's promise is passed on.
                    ($h, true) => unsafe { rows::<$h, 2>(t) },
                    // SAFETY: as above.
                    ($h, false) => unsafe { rows::<$h, 1>(t) },
                )*
                _ => unreachable!("tiles are at most 6 high"),
            }
        };
    }
    heights!(1 2 3 4 5 6)
}

/// # Safety
/// As of [`Micro::tile`].
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const H: usize, const V: usize>(t: &Tile) {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let full = t.w == 8 * V;
    let last = _mm256_cmpgt_epi32(_mm256_set1_epi32(t.w as i32 - 8 * (V as i32 - 1)), lanes);
    let mut acc = [[_mm256_setzero_ps(); V]; H];
    let (mut a, mut b, mut next) = (t.a, t.b, t.next);
    // SAFETY: by the caller's promise; lanes beyond the width are masked out.
    unsafe {
        for i in 0..H {
            fetch(t.c.add(i * t.c_row));
        }
        for _ in 0..t.k {
            fetch(next);
            next = next.wrapping_add(16);
            let mut y = [_mm256_setzero_ps(); V];
            for v in 0..V - 1 {
                y[v] = _mm256_loadu_ps(b.add(8 * v));
            }
            let at = b.add(8 * (V - 1));
            y[V - 1] = if full || t.whole { _mm256_loadu_ps(at) } else { _mm256_maskload_ps(at, last) };
            for i in 0..H {
                let x = _mm256_broadcast_ss(&*a.add(i));
                for v in 0..V {
                    acc[i][v] = _mm256_fmadd_ps(x, y[v], acc[i][v]);
                }
            }
            a = a.add(H);
            b = b.add(t.b_row);
        }
        for i in 0..H {
            for v in 0..V {
                let to = t.c.add(i * t.c_row + 8 * v);
                let from = t.from.wrapping_add(i * t.from_row + 8 * v);
                if v < V - 1 || full {
                    if !t.from.is_null() {
                        acc[i][v] = _mm256_add_ps(_mm256_loadu_ps(from), acc[i][v]);
                    }
                    _mm256_storeu_ps(to, acc[i][v]);
                } else {
                    if !t.from.is_null() {
                        acc[i][v] = _mm256_add_ps(_mm256_maskload_ps(from, last), acc[i][v]);
                    }
                    _mm256_maskstore_ps(to, last, acc[i][v]);
                }
            }
        }
    }
}
