//! Plain Rust that the compiler vectorises for whatever the target guarantees: 4 rows of 8 fit the
//! 16 registers of four lanes that x86-64 begins with.

use super::{Micro, Tile};

const NR: usize = 8;

pub(super) static MICRO: Micro = Micro { mr: 4, nr: NR, lanes: NR, tile };

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
            _ => unreachable!("tiles are at most 4 high"),
        }
    }
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
                    // Where the target lacks the instruction, fusing would call the library.
                    acc[i][j] += x[i] * y[j];
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
