//! 14 rows by two vectors of 16: 28 accumulators, two rows of B and a broadcast fill 31 of the 32
//! registers. A step of 28 multiply-adds loads 16 values or vectors, which hides their latency and
//! leaves the load ports room on processors with two multiply-adds a cycle.

use super::{Micro, Tile};
use std::arch::x86_64::*;

pub(super) static MICRO: Micro = Micro { mr: 14, nr: 32, tile };

/// # Safety
/// As of [`Micro::tile`].
unsafe fn tile(t: &Tile) {
    macro_rules! heights {
        ($($h:literal)*) => {
            match (t.h, t.w > 16) {
                $(
                    // SAFETY: the caller's promise is passed on.
                    ($h, true) => unsafe { rows::<$h, 2>(t) },
                    // SAFETY: as above.
                    ($h, false) => unsafe { rows::<$h, 1>(t) },
                )*
                _ => unreachable!("tiles are at most 14 high"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// # Safety
/// As of [`Micro::tile`].
#[target_feature(enable = "avx512f")]
unsafe fn rows<const H: usize, const V: usize>(t: &Tile) {
    let last = !0u16 >> (16 * V - t.w);
    let mut acc = [[_mm512_setzero_ps(); V]; H];
    let (mut a, mut b) = (t.a, t.b);
    // SAFETY: by the caller's promise; lanes beyond the width are masked out.
    unsafe {
        for i in 0..H {
            _mm_prefetch::<_MM_HINT_T0>(t.c.add(i * t.c_row).cast());
        }
        for _ in 0..t.k {
            let mut y = [_mm512_setzero_ps(); V];
            for v in 0..V - 1 {
                y[v] = _mm512_loadu_ps(b.add(16 * v));
            }
            y[V - 1] = _mm512_maskz_loadu_ps(last, b.add(16 * (V - 1)));
            for i in 0..H {
                let x = _mm512_set1_ps(*a.add(i));
                for v in 0..V {
                    acc[i][v] = _mm512_fmadd_ps(x, y[v], acc[i][v]);
                }
            }
            a = a.add(H);
            b = b.add(t.b_row);
        }
        if !t.from.is_null() {
            for i in 0..H {
                for v in 0..V {
                    let mask = if v == V - 1 { last } else { !0 };
                    let from = _mm512_maskz_loadu_ps(mask, t.from.add(i * t.from_row + 16 * v));
                    acc[i][v] = _mm512_add_ps(from, acc[i][v]);
                }
            }
        }
        for i in 0..H {
            for v in 0..V {
                let to = t.c.add(i * t.c_row + 16 * v);
                if v < V - 1 || last == !0 {
                    _mm512_storeu_ps(to, acc[i][v]);
                } else {
                    _mm512_mask_storeu_ps(to, last, acc[i][v]);
                }
            }
        }
    }
}
