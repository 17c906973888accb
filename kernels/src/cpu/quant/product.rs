//! The driver: activations are laid out, then tiles fill the result.

use super::packed::{LANES, Packed, blocks};
use super::tiles::{Machine, Tile};
use super::{Format, rows};
use crate::cpu::gemm::{Matrix, reach};
use crate::cpu::parts::Parts;
use crate::cpu::simd::{Level, level};
use crate::pool::Pool;
use std::ops::Range;

/// Called with the rows and columns of each block of the result when it is complete.
pub type After<'a> = dyn Fn(Range<usize>, Range<usize>) + Sync + 'a;

/// The most rows of a tile, and room for its result.
const MOST: usize = 12;

/// Words of scratch memory that a product of `m` rows needs.
pub fn scratch_len(m: usize, w: &Packed) -> usize {
    if is_direct(m, w.format()) { 0 } else { rows::words(w.format(), m, w.size().1) }
}

/// Few rows of real numbers are read where they are.
fn is_direct(m: usize, format: Format) -> bool {
    m < 8 && !format.is_whole()
}

/// `c[m n] = a[m k] W[n k]^T`, added to `c` when `accumulate` is set; `after` sees every block of
/// the result once, from the thread that completed it.
///
/// # Panics
/// When a matrix reaches beyond its slice, two elements of `c` share a place, or `scratch` is
/// shorter than [`scratch_len`] says.
pub fn product(
    pool: &Pool,
    m: usize,
    a: &[f32],
    sa: Matrix,
    w: &Packed,
    c: &mut [f32],
    sc: Matrix,
    accumulate: bool,
    scratch: &mut [i32],
    after: Option<&After>,
) {
    product_at(level(), pool, m, a, sa, w, c, sc, accumulate, scratch, after);
}

/// The same with the instructions of a level, which the processor has.
pub(super) fn product_at(
    level: Level,
    pool: &Pool,
    m: usize,
    a: &[f32],
    sa: Matrix,
    w: &Packed,
    c: &mut [f32],
    sc: Matrix,
    accumulate: bool,
    scratch: &mut [i32],
    after: Option<&After>,
) {
    let (n, k) = w.size();
    if m == 0 || n == 0 {
        return;
    }
    assert!(reach(m, k, sa) <= a.len() && reach(m, n, sc) <= c.len(), "a matrix is cut off");
    let distinct = (m <= 1 || sc.row > 0) && (n <= 1 || sc.col > 0);
    let nested = m <= 1 || n <= 1 || sc.row > (n - 1) * sc.col || sc.col > (m - 1) * sc.row;
    assert!(distinct && nested, "elements of a result share a place");
    // The sums of whole numbers over all of K must fit 32 bits.
    assert!(w.format() != Format::Int8 || k <= 65_536, "Int8 sums at most 65536 products");
    let machine = Machine::at(level);
    let scratch = &mut scratch[..scratch_len(m, w)];
    let direct = is_direct(m, w.format());
    if !direct {
        lay_out(pool, &machine, w, m, a, sa, scratch);
    }
    let x = Activations { a, sa, scratch, direct };
    // A task's activations stay in the second-level cache while panels stream by.
    let row_words = rows::words(w.format(), 1, k).max(1);
    let height = (65_536 / row_words).next_multiple_of(MOST).min(m);
    let heights = m.div_ceil(height);
    // Enough tasks to even out the threads, but none much shorter than starting it.
    let step = machine.panels * LANES;
    let strips = n.div_ceil(step);
    let work = (k * step * height).max(1);
    let least = (1usize << 18).div_ceil(work);
    let wide = strips.div_ceil((4 * pool.threads()).div_ceil(heights)).max(least).min(strips);
    let widths = strips.div_ceil(wide);
    let out = Parts::new(c);
    pool.run(heights * widths, &|task| {
        let (first, strip) = (task % heights * height, task / heights * wide);
        let lines = first..(first + height).min(m);
        let columns = strip * step..((strip + wide) * step).min(n);
        for strip in columns.clone().step_by(step) {
            let mut i = lines.start;
            while i < lines.end {
                let count = machine.rows(w.format(), lines.end - i);
                let mut tile = [0f32; MOST * 2 * LANES];
                // SAFETY: the rows lie below m, the panels below n.
                unsafe { x.run(&machine, w, strip / LANES, i, count, &mut tile) };
                let width = step.min(n - strip);
                for r in 0..count {
                    let values = &tile[r * step..r * step + width];
                    let reach = (width - 1) * sc.col + 1;
                    let start = out.at((i + r) * sc.row + strip * sc.col, reach);
                    // SAFETY: in bounds by the assertion of `at`; elements of C are distinct, and
                    // tasks write distinct ones.
                    unsafe { store(values, start, sc.col, accumulate) };
                }
                i += count;
            }
        }
        if let Some(after) = after {
            after(lines, columns);
        }
    });
}

/// # Safety
/// As many places as there are values, `col` apart, may be written.
unsafe fn store(values: &[f32], c: *mut f32, col: usize, accumulate: bool) {
    // SAFETY: by the caller's promise.
    unsafe {
        if accumulate {
            for (j, v) in values.iter().enumerate() {
                *c.add(j * col) += v;
            }
        } else if col == 1 {
            std::ptr::copy_nonoverlapping(values.as_ptr(), c, values.len());
        } else {
            for (j, v) in values.iter().enumerate() {
                *c.add(j * col) = *v;
            }
        }
    }
}

/// Fills the scratch memory, group by group.
fn lay_out(pool: &Pool, machine: &Machine, w: &Packed, m: usize, a: &[f32], sa: Matrix, scratch: &mut [i32]) {
    let (format, k) = (w.format(), w.size().1);
    let each = rows::words(format, 1, k);
    let out = Parts::new(scratch);
    // The same groups as the tiles', whose rows start at multiples of the largest tile.
    let largest = machine.rows(format, usize::MAX);
    let some = (16_384usize.div_ceil(k.max(1))).next_multiple_of(largest);
    pool.run(m.div_ceil(some), &|task| {
        let mut i = task * some;
        let end = (i + some).min(m);
        while i < end {
            let count = machine.rows(format, end - i);
            // SAFETY: groups are disjoint.
            let part = unsafe { out.get(i * each, count * each) };
            rows::group(format, count, k, &a[(i * sa.row).min(a.len())..], sa, part);
            i += count;
        }
    });
}

struct Activations<'a> {
    a: &'a [f32],
    sa: Matrix,
    scratch: &'a [i32],
    direct: bool,
}

impl Activations<'_> {
    /// Rows `i..i + count` times the panels from `panel`.
    ///
    /// # Safety
    /// The rows and panels exist, and `count` is what `Machine::rows` gave.
    unsafe fn run(&self, machine: &Machine, w: &Packed, panel: usize, i: usize, count: usize, out: &mut [f32]) {
        let (format, k) = (w.format(), w.size().1);
        let (data, bytes) = w.panels();
        let group = i * rows::words(format, 1, k);
        // Within the allocations, or not read at all.
        let start = self.scratch.as_ptr().wrapping_add(group);
        let words = blocks(k) * 8 * count;
        let scales = if format.is_blocks() { blocks(k) * count } else { count };
        let tile = Tile {
            inner: if format.is_whole() { blocks(k) } else { k },
            x: if self.direct { self.a.as_ptr().wrapping_add(i * self.sa.row) } else { start.cast() },
            x_row: if self.direct { self.sa.row } else { 1 },
            x_col: if self.direct { self.sa.col } else { count },
            quants: start,
            scales: start.wrapping_add(words),
            starts: start.wrapping_add(words + scales),
            w: data[panel * bytes..].as_ptr(),
            panel: bytes,
            out: out.as_mut_ptr(),
        };
        debug_assert!(out.len() >= count * machine.panels * LANES);
        // SAFETY: the layout of both operands was made for these sizes; the rest is promised.
        unsafe { machine.run(format, count, &tile) }
    }
}
