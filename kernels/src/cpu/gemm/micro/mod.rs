//! Micro-kernels: a tile of C that stays in registers while a block of K passes by.
//!
//! `A` comes as panels of the tile's own height, `k` columns one after the other, so that the
//! elements to broadcast are next to each other; rows of `B` are vectors, from a panel or from the
//! matrix itself. There is one kernel for every height up to the level's largest, so that rows are
//! split evenly and no row of zeros is multiplied; at the right edge masks (or, in portable code,
//! copies) stand for the missing columns.
//!
//! Every kernel sums a block in the order of `k`, one fused multiply-add at a time where the level
//! has them: the value of an element depends neither on the tile that it falls into nor on who
//! computes it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(target_arch = "aarch64"))]
mod portable;

use crate::cpu::simd::{Level, level};

/// The operands of one call.
pub(super) struct Tile {
    /// Rows, from 1 to the kernel's largest height.
    pub h: usize,
    /// Columns, from 1 to the kernel's width.
    pub w: usize,
    /// Summed products.
    pub k: usize,
    /// Element `(i, p)` is at `p * h + i`.
    pub a: *const f32,
    /// Row `p` begins at `p * b_row`.
    pub b: *const f32,
    pub b_row: usize,
    /// Whether the rows of `b` may be read to the kernel's full width, as those of panels.
    pub whole: bool,
    /// Row `i` begins at `i * c_row`.
    pub c: *mut f32,
    pub c_row: usize,
    /// What the product is added to: rows `from_row` apart (0 repeats one row); null for nothing.
    pub from: *const f32,
    pub from_row: usize,
    /// What will be read next: a cache line is fetched with every step of `k`.
    pub next: *const f32,
}

/// The kernels of a level.
pub(super) struct Micro {
    /// The largest height.
    pub mr: usize,
    /// The width: that of the panels of `B`.
    pub nr: usize,
    /// The multiple to which a narrower panel is filled up.
    pub lanes: usize,
    /// Computes a tile.
    ///
    /// # Safety
    /// The processor has the level's instructions, and all that the tile names lies in its memory.
    pub tile: unsafe fn(&Tile),
}

impl Micro {
    /// The distance between the rows of a panel of `w` columns.
    pub fn row(&self, w: usize) -> usize {
        w.next_multiple_of(self.lanes)
    }

    /// The first column, and columns, of panel `q` of `n` columns.
    pub fn panel(&self, n: usize, q: usize) -> (usize, usize) {
        stripe(n, self.nr, self.lanes, q)
    }

    /// The first row, and rows, of tile `t` of `m` rows.
    pub fn rows(&self, m: usize, t: usize) -> (usize, usize) {
        stripe(m, self.mr, 1, t)
    }
}

/// Stripe `q` of those that cover `n`: `size` wide but for the last two, which share what is left by
/// halves, in multiples of `lanes`: a narrow tile makes poor use of a step.
fn stripe(n: usize, size: usize, lanes: usize, q: usize) -> (usize, usize) {
    let from = q * size;
    if n >= from + 2 * size || n == from + size {
        return (from, size);
    }
    if n > from + size {
        return (from, (n - from).div_ceil(2).next_multiple_of(lanes));
    }
    // The last one, after a shorter one if there is one before it.
    let start = if q > 0 { from - size + (n + size - from).div_ceil(2).next_multiple_of(lanes) } else { 0 };
    (start, n - start)
}

/// The largest tile of any level, in elements.
pub(super) const LARGEST: usize = 8 * 48;

/// Asks for the cache line of an address, which may be none.
#[inline(always)]
pub(super) fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; part of every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; it changes neither registers nor memory.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly));
    }
    let _ = at;
}

/// The kernels of a level that the processor has.
pub(super) fn at(level: Level) -> &'static Micro {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &avx512::MICRO,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::MICRO,
        #[cfg(target_arch = "aarch64")]
        _ => &neon::MICRO,
        #[cfg(not(target_arch = "aarch64"))]
        _ => &portable::MICRO,
    }
}

/// The kernels in use.
pub(super) fn micro() -> &'static Micro {
    at(level())
}
