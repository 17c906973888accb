//! 8 rows by three vectors of 4: 24 accumulators, three rows of B and the rows of A fill the 32
//! registers.

use super::{Micro, Tile, fetch};
use std::arch::aarch64::*;

pub(super) static MICRO: Micro = Micro { mr: 8, nr: 12, lanes: 4, tile };

/// # Safety
/// As of [`Micro::tile`].
unsafe fn tile(t: &Tile) {
    macro_rules! heights {
        ($($h:literal)*) => {
            match (t.h, t.w.div_ceil(4)) {
                $(
                    // SAFETY: the caller's promise is passed on.
                    ($h, 3) => unsafe { rows::<$h, 3>(t) },
                    // SAFETY: as above.
                    ($h, 2) => unsafe { rows::<$h, 2>(t) },
                    // SAFETY: as above.
                    ($h, _) => unsafe { rows::<$h, 1>(t) },
                )*
                _ => unreachable!("tiles are at most 8 high"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8)
}

/// # Safety
/// As of [`Micro::tile`].
#[target_feature(enable = "neon")]
unsafe fn rows<const H: usize, const V: usize>(t: &Tile) {
    let mut acc = [[vdupq_n_f32(0.0); V]; H];
    let (mut a, mut b, mut next) = (t.a, t.b, t.next);
    let whole = t.whole || t.w == 4 * V;
    // SAFETY: by the caller's promise; only what lies within the width is touched unless rows of B
    // may be read whole.
    unsafe {
        for _ in 0..t.k {
            fetch(next);
            next = next.wrapping_add(16);
            let y: [float32x4_t; V] = if whole { vectors(b) } else { vectors(part::<V>(b, t.w).as_ptr().cast()) };
            for i in 0..H {
                let x = vld1q_dup_f32(a.add(i));
                for v in 0..V {
                    acc[i][v] = vfmaq_f32(acc[i][v], y[v], x);
                }
            }
            a = a.add(H);
            b = b.wrapping_add(t.b_row);
        }
        for i in 0..H {
            let to = t.c.wrapping_add(i * t.c_row);
            if !t.from.is_null() {
                let from = t.from.wrapping_add(i * t.from_row);
                let exact = t.w == 4 * V;
                let y: [float32x4_t; V] =
                    if exact { vectors(from) } else { vectors(part::<V>(from, t.w).as_ptr().cast()) };
                for v in 0..V {
                    acc[i][v] = vaddq_f32(y[v], acc[i][v]);
                }
            }
            if t.w == 4 * V {
                for v in 0..V {
                    vst1q_f32(to.add(4 * v), acc[i][v]);
                }
            } else {
                let mut copy = [[0f32; 4]; V];
                for v in 0..V {
                    vst1q_f32(copy[v].as_mut_ptr(), acc[i][v]);
                }
                to.copy_from_nonoverlapping(copy.as_ptr().cast(), t.w);
            }
        }
    }
}

/// # Safety
/// `4 V` values can be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn vectors<const V: usize>(from: *const f32) -> [float32x4_t; V] {
    let mut y = [vdupq_n_f32(0.0); V];
    for v in 0..V {
        // SAFETY: by the caller's promise.
        y[v] = unsafe { vld1q_f32(from.add(4 * v)) };
    }
    y
}

/// The first `w` values, then zeros.
///
/// # Safety
/// They can be read, and are at most `4 V`.
#[inline]
unsafe fn part<const V: usize>(from: *const f32, w: usize) -> [[f32; 4]; V] {
    let mut y = [[0f32; 4]; V];
    // SAFETY: by the caller's promise.
    unsafe { from.copy_to_nonoverlapping(y.as_mut_ptr().cast(), w) };
    y
}
