//! Plain Rust that the compiler vectorises for whatever the target guarantees: 4 rows of 8 for 16
//! registers of four lanes (SSE2), 8 rows of 12 for 32 registers and fused multiply-adds (NEON).

use super::{Micro, Tile};

const WIDE: bool = cfg!(target_arch = "aarch64");
const NR: usize = if WIDE { 12 } else { 8 };

pub(super) static MICRO: Micro = Micro { mr: if WIDE { 8 } else { 4 }, nr: NR, lanes: NR, tile };

/// # Safety
/// As of [`Micro::tile`].
unsafe fn tile(t: &Tile) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match t.h {
            1 => rows::<1>(t),
            2 => rows::<2>(t),
            3 => rows::<3>(t),
            4 => rows::<4>(t),
            5 => rows::<5>(t),
            6 => rows::<6>(t),
            7 => rows::<7>(t),
            8 => rows::<8>(t),
            _ => unreachable!("tiles are at most 8 high"),
        }
    }
}

/// Without the instruction a fused multiply-add is a call of the library.
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    if WIDE { a.mul_add(b, c) } else { a * b + c }
}

/// # Safety
/// As of [`Micro::tile`].
unsafe fn rows<const H: usize>(t: &Tile) {
    let mut acc = [[0f32; NR]; H];
    let (mut a, mut b) = (t.a, t.b);
    // SAFETY: by the caller's promise; only what lies within the width is touched unless rows of B
    // may be read whole.
    unsafe {
        for _ in 0..t.k {
            let y = if t.whole || t.w == NR { b.cast::<[f32; NR]>().read_unaligned() } else { row(b, t.w) };
            let x = a.cast::<[f32; H]>().read_unaligned();
            for i in 0..H {
                for j in 0..NR {
                    acc[i][j] = fma(x[i], y[j], acc[i][j]);
                }
            }
            a = a.add(H);
            b = b.wrapping_add(t.b_row);
        }
        for i in 0..H {
            let to = t.c.add(i * t.c_row);
            if !t.from.is_null() {
                let from = t.from.add(i * t.from_row);
                let from = if t.w == NR { from.cast::<[f32; NR]>().read_unaligned() } else { row(from, t.w) };
                for j in 0..NR {
                    acc[i][j] += from[j];
                }
            }
            if t.w == NR {
                to.cast::<[f32; NR]>().write_unaligned(acc[i]);
            } else {
                to.copy_from_nonoverlapping(acc[i].as_ptr(), t.w);
            }
        }
    }
}

/// The first `w` values, then zeros.
///
/// # Safety
/// They can be read, and are at most a kernel's width.
#[inline(always)]
unsafe fn row(from: *const f32, w: usize) -> [f32; NR] {
    let mut y = [0f32; NR];
    // SAFETY: by the caller's promise.
    unsafe { from.copy_to_nonoverlapping(y.as_mut_ptr(), w) };
    y
}
