//! Packing: blocks of a matrix copied into panels that a micro-kernel reads from front to back.
//!
//! A panel is `w` rows of A (or columns of B) wide and `k` deep; element `(p, j)` is at
//! `p * w + j`. Blocks whose `w` elements lie next to each other are copied in runs, those whose
//! `k` elements do are transposed four by four in registers, others are copied one by one.

use super::cut::blocks;
use super::micro::micro;
use super::{Matrix, reach};
use crate::cpu::parts::Parts;
use crate::pool::Pool;

/// A block to pack: element `(p, j)` is at `p * deep + j * wide`.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub at: *const f32,
    pub deep: usize,
    pub wide: usize,
}

/// Packs `k` by `w` elements, rows `out_w` apart, and zeros where `w < out_w`.
///
/// # Safety
/// The elements can be read, and `out` holds `k * out_w` values.
#[inline(always)]
unsafe fn pack_body(x: Source, k: usize, w: usize, out: *mut f32, out_w: usize) {
    // SAFETY: by the caller's promise, here and below.
    unsafe {
        if x.wide == 1 || w == 1 {
            match (w, out_w) {
                (32, 32) => runs::<32>(x, k, out),
                (16, 16) => runs::<16>(x, k, out),
                (8, 8) => runs::<8>(x, k, out),
                _ => {
                    for p in 0..k {
                        let (from, to) = (x.at.add(p * x.deep), out.add(p * out_w));
                        let mut j = 0;
                        while j + 4 <= w {
                            to.add(j)
                                .cast::<[f32; 4]>()
                                .write_unaligned(from.add(j).cast::<[f32; 4]>().read_unaligned());
                            j += 4;
                        }
                        while j < w {
                            *to.add(j) = *from.add(j);
                            j += 1;
                        }
                    }
                }
            }
        } else if x.deep == 1 {
            transpose(x, k, w, out, out_w);
        } else {
            for p in 0..k {
                for j in 0..w {
                    *out.add(p * out_w + j) = *x.at.add(p * x.deep + j * x.wide);
                }
            }
        }
        if w < out_w {
            for p in 0..k {
                for j in w..out_w {
                    *out.add(p * out_w + j) = 0.0;
                }
            }
        }
    }
}

/// Runs of `W` elements.
///
/// # Safety
/// As of [`pack`].
#[inline(always)]
unsafe fn runs<const W: usize>(x: Source, k: usize, out: *mut f32) {
    for p in 0..k {
        // SAFETY: by the caller's promise.
        unsafe {
            let row = x.at.add(p * x.deep).cast::<[f32; W]>().read_unaligned();
            out.add(p * W).cast::<[f32; W]>().write_unaligned(row);
        }
    }
}

/// Columns of unit distance become rows.
///
/// # Safety
/// As of [`pack`].
#[inline(always)]
unsafe fn transpose(x: Source, k: usize, w: usize, out: *mut f32, out_w: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut j = 0;
        while j + 4 <= w {
            let from = x.at.add(j * x.wide);
            let mut p = 0;
            while p + 4 <= k {
                let row = |i: usize| from.add(i * x.wide + p).cast::<[f32; 4]>().read_unaligned();
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                for q in 0..4 {
                    out.add((p + q) * out_w + j).cast::<[f32; 4]>().write_unaligned([a[q], b[q], c[q], d[q]]);
                }
                p += 4;
            }
            while p < k {
                for i in 0..4 {
                    *out.add(p * out_w + j + i) = *from.add(i * x.wide + p);
                }
                p += 1;
            }
            j += 4;
        }
        while j < w {
            for p in 0..k {
                *out.add(p * out_w + j) = *x.at.add(j * x.wide + p);
            }
            j += 1;
        }
    }
}

struct Call(Source, usize, usize, *mut f32, usize);

#[inline(always)]
fn call_body(x: Call) {
    // SAFETY: `pack` passes its caller's promise on.
    unsafe { pack_body(x.0, x.1, x.2, x.3, x.4) }
}
crate::dispatch! { fn call(x: Call) = call_body; }

/// Packs `k` by `w` elements, rows `out_w` apart, and zeros where `w < out_w`.
///
/// # Safety
/// The elements can be read, and `out` holds `k * out_w` values.
pub(super) unsafe fn pack(x: Source, k: usize, w: usize, out: *mut f32, out_w: usize) {
    call(Call(x, k, w, out, out_w));
}

/// A right side packed once for many products: blocks of K, in each the panels of all columns.
///
/// The layout depends on the size of the matrix and on the processor's level alone, so that one
/// copy serves any number of rows and threads.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub(super) data: &'a [f32],
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<'a> Panels<'a> {
    /// The panels that [`pack_b`] made of `k` by `n` elements.
    ///
    /// # Panics
    /// When there are too few values.
    pub fn new(data: &'a [f32], n: usize, k: usize) -> Panels<'a> {
        assert!(data.len() >= packed_len(n, k), "a packed matrix is cut off");
        Panels { data, n, k }
    }
}

/// Values that [`pack_b`] writes for `k` by `n` elements.
pub fn packed_len(n: usize, k: usize) -> usize {
    k * n.next_multiple_of(micro().nr)
}

/// Packs the matrix `b`, `k` by `n`, as the right side of products.
///
/// # Panics
/// When the matrix reaches beyond its slice, or `out` holds fewer than [`packed_len`] values.
pub fn pack_b(pool: &Pool, (n, k): (usize, usize), b: &[f32], at: Matrix, out: &mut [f32]) {
    assert!(reach(k, n, at) <= b.len(), "a matrix is cut off");
    let nr = micro().nr;
    let panels = n.div_ceil(nr);
    let out = Parts::new(&mut out[..packed_len(n, k)]);
    pool.run(panels, &|q| {
        let w = nr.min(n - q * nr);
        for (k0, kc) in blocks(k) {
            // SAFETY: panels are disjoint.
            let to = unsafe { out.get(k0 * panels * nr + q * kc * nr, kc * nr) };
            let from = b.as_ptr().wrapping_add(k0 * at.row + q * nr * at.col);
            // SAFETY: the matrix lies in its slice, as was asserted.
            unsafe { pack(Source { at: from, deep: at.row, wide: at.col }, kc, w, to.as_mut_ptr(), nr) };
        }
    });
}
