//! Packing: blocks of a matrix copied into panels that a micro-kernel reads from front to back.
//!
//! A panel is `w` rows of A (or columns of B) wide and `k` deep; element `(p, j)` is at
//! `p * w + j`. Blocks whose `w` elements lie next to each other are copied in runs, those whose
//! `k` elements do are transposed four by four in registers, others are copied one by one.

use super::cut::blocks;
use super::micro::{Micro, fetch, micro};
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

/// The place of a block that is packed.
#[derive(Clone, Copy)]
pub(super) struct Packed {
    pub at: *mut f32,
    /// Distance between the rows of a panel.
    pub row: usize,
}

/// Packs `k` by `w` elements into one panel, and zeros where `w` is less than its rows.
///
/// # Safety
/// The elements can be read, and `k` rows written.
pub(super) unsafe fn pack(x: Source, k: usize, w: usize, out: Packed) {
    // SAFETY: by the caller's promise.
    unsafe {
        if x.wide == 1 || w == 1 {
            copy(x, k, w, out);
        } else if x.deep == 1 {
            transpose(x, k, w, out);
        } else {
            for (p, j) in (0..k).flat_map(|p| (0..w).map(move |j| (p, j))) {
                *out.at.add(p * out.row + j) = *x.at.add(p * x.deep + j * x.wide);
            }
        }
        for p in 0..if w < out.row { k } else { 0 } {
            std::slice::from_raw_parts_mut(out.at.add(p * out.row + w), out.row - w).fill(0.0);
        }
    }
}

/// Packs `k` by `count * out.row` elements, next to each other in rows, into `count` panels that
/// follow each other. Rows are read to their end, for the processor fetches ahead along them.
///
/// # Safety
/// As of [`pack`].
pub(super) unsafe fn pack_runs(x: Source, k: usize, count: usize, out: Packed) {
    runs((x, k, count, out));
}

#[inline(always)]
fn runs_body(call: (Source, usize, usize, Packed)) {
    // SAFETY: `pack_runs` passes its caller's promise on.
    unsafe {
        match call.3.row {
            48 => runs_of::<48>(call),
            16 => runs_of::<16>(call),
            12 => runs_of::<12>(call),
            8 => runs_of::<8>(call),
            6 => runs_of::<6>(call),
            4 => runs_of::<4>(call),
            _ => unreachable!("the widths of all kernels are listed"),
        }
    }
}
crate::dispatch! { fn runs(call: (Source, usize, usize, Packed)) = runs_body; }

/// # Safety
/// As of [`pack`].
#[inline(always)]
unsafe fn runs_of<const W: usize>((x, k, count, out): (Source, usize, usize, Packed)) {
    for p in 0..k {
        for q in 0..count {
            // SAFETY: by the caller's promise; fetching touches nothing.
            unsafe {
                fetch(x.at.wrapping_add((p + 8) * x.deep + q * W));
                let run = x.at.add(p * x.deep + q * W).cast::<[f32; W]>().read_unaligned();
                out.at.add((q * k + p) * W).cast::<[f32; W]>().write_unaligned(run);
            }
        }
    }
}

/// Runs of `w` elements, any number.
///
/// # Safety
/// As of [`pack`].
unsafe fn copy(x: Source, k: usize, w: usize, out: Packed) {
    for p in 0..k {
        // SAFETY: by the caller's promise.
        unsafe {
            let (from, to) = (x.at.add(p * x.deep), out.at.add(p * out.row));
            let mut j = 0;
            while j + 4 <= w {
                to.add(j).cast::<[f32; 4]>().write_unaligned(from.add(j).cast::<[f32; 4]>().read_unaligned());
                j += 4;
            }
            while j < w {
                *to.add(j) = *from.add(j);
                j += 1;
            }
        }
    }
}

/// Columns whose elements follow each other become rows.
///
/// # Safety
/// As of [`pack`].
unsafe fn transpose(x: Source, k: usize, w: usize, out: Packed) {
    // SAFETY: by the caller's promise; the level is what the processor has.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        let done = {
            let wide = crate::cpu::simd::level() >= crate::cpu::simd::Level::Avx2;
            let done = if wide { x86::eights(x, k, w, out) } else { 0 };
            x86::fours(x, k, w, out, done)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        for j in done..w {
            for p in 0..k {
                *out.at.add(p * out.row + j) = *x.at.add(j * x.wide + p);
            }
        }
    }
}

/// Blocks transposed in registers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Packed, Source, fetch};
    use std::arch::x86_64::*;

    /// Eight columns at a time; returns how many were done.
    ///
    /// # Safety
    /// As of [`pack`](super::pack).
    #[target_feature(enable = "avx")]
    pub unsafe fn eights(x: Source, k: usize, w: usize, out: Packed) -> usize {
        let mut j = 0;
        while j + 8 <= w {
            // SAFETY: by the caller's promise.
            unsafe {
                let (from, to) = (x.at.add(j * x.wide), out.at.add(j));
                let mut p = 0;
                while p + 8 <= k {
                    let mut r = [_mm256_setzero_ps(); 8];
                    for i in 0..8 {
                        fetch(from.wrapping_add(i * x.wide + p + 48));
                        r[i] = _mm256_loadu_ps(from.add(i * x.wide + p));
                    }
                    let mut t = r;
                    for i in 0..4 {
                        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
                    }
                    for i in [0, 4] {
                        r[i] = _mm256_shuffle_ps::<0x44>(t[i], t[i + 2]);
                        r[i + 1] = _mm256_shuffle_ps::<0xee>(t[i], t[i + 2]);
                        r[i + 2] = _mm256_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
                        r[i + 3] = _mm256_shuffle_ps::<0xee>(t[i + 1], t[i + 3]);
                    }
                    for i in 0..4 {
                        let (low, high) = (r[i], r[i + 4]);
                        _mm256_storeu_ps(to.add((p + i) * out.row), _mm256_permute2f128_ps::<0x20>(low, high));
                        _mm256_storeu_ps(to.add((p + 4 + i) * out.row), _mm256_permute2f128_ps::<0x31>(low, high));
                    }
                    p += 8;
                }
                while p < k {
                    for i in 0..8 {
                        *to.add(p * out.row + i) = *from.add(i * x.wide + p);
                    }
                    p += 1;
                }
            }
            j += 8;
        }
        j
    }

    /// Four columns at a time, then two, from column `j` on; returns how many were done.
    ///
    /// # Safety
    /// As of [`pack`](super::pack).
    pub unsafe fn fours(x: Source, k: usize, w: usize, out: Packed, mut j: usize) -> usize {
        while j + 2 <= w {
            let four = j + 4 <= w;
            // SAFETY: by the caller's promise; two columns are read twice rather than four.
            unsafe {
                let (from, to) = (x.at.add(j * x.wide), out.at.add(j));
                let (third, fourth) = if four { (2 * x.wide, 3 * x.wide) } else { (0, x.wide) };
                let mut p = 0;
                while p + 4 <= k {
                    let (a, b) = (_mm_loadu_ps(from.add(p)), _mm_loadu_ps(from.add(x.wide + p)));
                    let (c, d) = (_mm_loadu_ps(from.add(third + p)), _mm_loadu_ps(from.add(fourth + p)));
                    let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
                    let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
                    let rows = [
                        _mm_movelh_ps(ab, cd),
                        _mm_movehl_ps(cd, ab),
                        _mm_movelh_ps(ab_high, cd_high),
                        _mm_movehl_ps(cd_high, ab_high),
                    ];
                    for i in 0..4 {
                        let to = to.add((p + i) * out.row);
                        if four { _mm_storeu_ps(to, rows[i]) } else { _mm_store_sd(to.cast(), _mm_castps_pd(rows[i])) }
                    }
                    p += 4;
                }
                while p < k {
                    for i in 0..if four { 4 } else { 2 } {
                        *to.add(p * out.row + i) = *from.add(i * x.wide + p);
                    }
                    p += 1;
                }
            }
            j += if four { 4 } else { 2 };
        }
        j
    }
}

/// Packs the panels `q..end` of a matrix of `k` by `n` elements, of which `x` is the first, into
/// `out`, where they follow each other.
///
/// # Safety
/// As of [`pack`].
pub(super) unsafe fn pack_panels(micro: &Micro, x: Source, k: usize, n: usize, q: usize, end: usize, out: *mut f32) {
    let (first, mut next) = (micro.panel(n, q).0, q);
    // SAFETY: by the caller's promise.
    unsafe {
        if x.wide == 1 {
            while next < end && micro.panel(n, next).1 == micro.nr {
                next += 1;
            }
            pack_runs(x, k, next - q, Packed { at: out, row: micro.nr });
        }
        for q in next..end {
            let (j, w) = micro.panel(n, q);
            let from = Source { at: x.at.wrapping_add((j - first) * x.wide), ..x };
            pack(from, k, w, Packed { at: out.wrapping_add((j - first) * k), row: micro.row(w) });
        }
    }
}

/// Packs `m` rows of a left side, of `k` elements each, tile by tile.
///
/// # Safety
/// As of [`pack`].
pub(super) unsafe fn pack_tiles(micro: &Micro, x: Source, k: usize, m: usize, out: *mut f32) {
    let mut next = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        if x.wide == 1 {
            // All whole tiles together: rows of K are then read to their end.
            while next < m.div_ceil(micro.mr) && micro.rows(m, next).1 == micro.mr {
                next += 1;
            }
            pack_runs(x, k, next, Packed { at: out, row: micro.mr });
        }
        for t in next..m.div_ceil(micro.mr) {
            let (i, h) = micro.rows(m, t);
            let from = Source { at: x.at.wrapping_add(i * x.wide), ..x };
            pack(from, k, h, Packed { at: out.wrapping_add(i * k), row: h });
        }
    }
}

/// Panels that a task of [`pack_b`] packs together.
const GROUP: usize = 8;

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
    k * micro().row(n)
}

/// Packs the matrix `b`, `k` by `n`, as the right side of products.
///
/// # Panics
/// When the matrix reaches beyond its slice, or `out` holds fewer than [`packed_len`] values.
pub fn pack_b(pool: &Pool, (n, k): (usize, usize), b: &[f32], at: Matrix, out: &mut [f32]) {
    assert!(reach(k, n, at) <= b.len(), "a matrix is cut off");
    let micro = micro();
    let panels = n.div_ceil(micro.nr);
    let out = Parts::new(&mut out[..packed_len(n, k)]);
    pool.run(panels.div_ceil(GROUP), &|g| {
        let (q, end) = (g * GROUP, panels.min((g + 1) * GROUP));
        let (first, last) = (micro.panel(n, q).0, micro.panel(n, end - 1));
        for (k0, kc) in blocks(k) {
            let len = micro.row(last.0 + last.1 - first) * kc;
            // SAFETY: panels are disjoint.
            let to = unsafe { out.get(k0 * micro.row(n) + first * kc, len) };
            let from = b.as_ptr().wrapping_add(k0 * at.row + first * at.col);
            let from = Source { at: from, deep: at.row, wide: at.col };
            // SAFETY: the matrix lies in its slice, as was asserted.
            unsafe { pack_panels(micro, from, kc, n, q, end, to.as_mut_ptr()) };
        }
    });
}
