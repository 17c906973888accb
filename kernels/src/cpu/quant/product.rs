//! The driver: activations are laid out, then tiles fill the results.
//!
//! One parallel region lays out the activations once for each format among the results; one more
//! computes all results: a task takes some rows and a strip of channels. With few rows there is
//! one strip after the other for each thread, and weights stream by once.

use super::packed::{Kind, LANES, Packed, blocks};
use super::tiles::{Machine, Tile};
use super::{Format, rows};
use crate::cpu::gemm::{self, After, Columns, Finished, Left, Matrix, Right};
use crate::cpu::parts::Parts;
use crate::cpu::simd::Level;
use crate::pool::Pool;

/// The most rows of a tile, and room for its result.
const MOST: usize = 12;

/// Results whose tasks make one region.
const TOGETHER: usize = 4;

/// Multiply-adds that make a task: about a microsecond's.
const LEAST: usize = 1 << 16;
/// Rows whose multiplications take as long as reading the weights from memory.
const READING: usize = 3;

/// Scratch floats that the right side `w` adds to those of a [`gemm::Product`] of `m` rows.
pub fn scratch_len(m: usize, kind: impl Into<Kind>, k: usize) -> usize {
    let kind = kind.into();
    if is_direct(m, kind) { 0 } else { rows::words(kind, m, k) }
}

/// Few rows of real numbers are read where they are.
fn is_direct(m: usize, kind: Kind) -> bool {
    m < 8 && !kind.is_whole()
}

/// A number for each layout of activations: real numbers have two, for the tiles' sizes differ.
fn layout(kind: Kind) -> usize {
    match kind.is_whole() {
        true => kind.format as usize,
        false if kind.is_exact() => Format::COUNT,
        false => Format::Bf16 as usize,
    }
}

/// `c[m n] = a[m k] W[n k]^T`: a [`gemm::product`] of one left and one right side.
///
/// # Panics
/// As [`gemm::product`] does.
pub fn product(
    pool: &Pool,
    m: usize,
    (a, sa): (&[f32], Matrix),
    w: &Packed,
    (c, sc): (&mut [f32], Matrix),
    scratch: &mut [f32],
    after: Option<&After>,
) {
    let ((n, k), b) = (w.size(), [Right::Rounded(w)]);
    let left = [Left { k, data: a, at: sa }];
    let mut right = [Columns::new(n, &b, c, sc)];
    let x = &mut gemm::Product { m, left: &left, right: &mut right, accumulate: false, alike: false, after };
    gemm::product(pool, x, scratch);
}

/// The results of a product whose right sides are rounded, with the instructions of a level that
/// the processor has.
///
/// # Safety
/// Sizes and strides fit the slices, and elements of results are distinct.
pub(in crate::cpu) unsafe fn drive(level: Level, pool: &Pool, x: &gemm::Product, scratch: &mut [f32]) {
    // SAFETY: every pattern of 32 bits is either.
    let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<i32>(), scratch.len()) };
    let machine = Machine::at(level);
    let (machine, m) = (if x.alike { machine.alike() } else { machine }, x.m);
    for (i, left) in x.left.iter().enumerate() {
        let right = |j: usize| match x.right[j].b[i] {
            Right::Rounded(w) => Some(w),
            Right::Plain(..) | Right::Packed(_) => {
                assert!(!x.right[j].is_rounded(), "all right sides of a result are rounded, or none");
                None
            }
        };
        // The activations in every format that occurs, one behind the other.
        let mut used = 0;
        let mut places = [None; Format::COUNT + 1];
        for w in (0..x.right.len()).filter_map(right) {
            let (kind, k) = (w.kind(), w.size().1);
            // Sums of whole numbers over all of K must fit 32 bits.
            assert!(kind.format != Format::Int8 || k <= 65_536, "Int8 sums at most 65536 products");
            let words = scratch_len(m, kind, k);
            if places[layout(kind)].is_none() && words > 0 {
                lay_out(pool, &machine, kind, (m, k), left, &mut scratch[used..used + words]);
                places[layout(kind)] = Some(used);
                used += words;
            }
        }
        let last = i + 1 == x.left.len();
        let job = |j: usize| {
            let w = right(j)?;
            let laid = places[layout(w.kind())].map(|at| &scratch[at..]);
            let after = x.after.filter(|_| last);
            Some(Job { machine, m, left, w, laid, c: &x.right[j], j, add: x.accumulate || i > 0, after })
        };
        // Tasks of some results in one region; the first results' come first.
        for first in (0..x.right.len()).step_by(TOGETHER) {
            let jobs: [_; TOGETHER] = std::array::from_fn(|j| {
                let job = (first + j < x.right.len()).then(|| job(first + j)).flatten()?;
                let cut = job.cut(pool.threads());
                Some((job, cut))
            });
            pool.run(jobs.iter().flatten().map(|(_, cut)| cut.tasks).sum(), &|mut task| {
                for (job, cut) in jobs.iter().flatten() {
                    if task < cut.tasks {
                        // SAFETY: by the caller's promise; blocks of results are disjoint.
                        return unsafe { job.run(task, *cut) };
                    }
                    task -= cut.tasks;
                }
            });
        }
    }
}

/// Fills `out` with the activations in the order of the tiles, group by group.
fn lay_out(pool: &Pool, machine: &Machine, kind: Kind, (m, k): (usize, usize), left: &Left, out: &mut [i32]) {
    let each = rows::words(kind, 1, k);
    let out = Parts::new(out);
    // The same groups as the tiles', which start at multiples of the largest.
    let largest = machine.rows(kind, usize::MAX);
    let some = (16_384usize.div_ceil(k.max(1))).next_multiple_of(largest);
    pool.run(m.div_ceil(some), &|task| {
        let mut i = task * some;
        let end = (i + some).min(m);
        while i < end {
            let count = machine.rows(kind, end - i);
            // SAFETY: groups are disjoint.
            let part = unsafe { out.get(i * each, count * each) };
            rows::group(kind, count, k, &left.data[(i * left.at.row).min(left.data.len())..], left.at, part);
            i += count;
        }
    });
}

/// How a result is cut into tasks: of `height` rows and `wide` strips of channels.
#[derive(Clone, Copy)]
struct Cut {
    height: usize,
    heights: usize,
    wide: usize,
    tasks: usize,
}

/// A result and what leads to it.
struct Job<'a> {
    machine: Machine,
    m: usize,
    left: &'a Left<'a>,
    w: &'a Packed,
    /// The activations laid out, or none where they are read in place.
    laid: Option<&'a [i32]>,
    c: &'a Columns<'a>,
    j: usize,
    add: bool,
    after: Option<&'a After<'a>>,
}

impl Job<'_> {
    /// Channels that a tile computes.
    fn step(&self) -> usize {
        self.machine.panels * LANES
    }

    fn cut(&self, threads: usize) -> Cut {
        let (n, k) = self.w.size();
        // A task's activations stay in the second-level cache while panels stream by.
        let row_words = rows::words(self.w.kind(), 1, k).max(1);
        let height = (65_536 / row_words).next_multiple_of(MOST).min(self.m).max(1);
        let heights = self.m.div_ceil(height);
        let strips = n.div_ceil(self.step());
        // Reading a strip's weights takes as long as some rows' multiplications.
        let work = (k * self.step() * (height + READING)).max(1);
        let wide = if self.m <= MOST {
            // A step of a language model: small tasks even out threads that are not equally fast, as
            // long as each is worth more than being handed out.
            (strips / (8 * threads)).clamp((LEAST / work).max(1), (4 * LEAST / work).max(1))
        } else {
            strips.div_ceil((4 * threads).div_ceil(heights.max(1))).max((4 * LEAST).div_ceil(work))
        };
        let wide = wide.min(strips).max(1);
        Cut { height, heights, wide, tasks: heights * strips.div_ceil(wide) }
    }

    /// # Safety
    /// Sizes and strides fit, and nobody else touches the task's block of the result.
    unsafe fn run(&self, task: usize, cut: Cut) {
        let (n, step, sc) = (self.w.size().0, self.step(), self.c.at);
        let (first, strip) = (task % cut.heights * cut.height, task / cut.heights * cut.wide);
        let lines = first..(first + cut.height).min(self.m);
        let columns = strip * step..((strip + cut.wide) * step).min(n);
        let mut tile = [0f32; MOST * 2 * LANES];
        for strip in columns.clone().step_by(step) {
            let mut i = lines.start;
            while i < lines.end {
                let count = self.machine.rows(self.w.kind(), lines.end - i);
                // SAFETY: the rows lie below m, the panels below n.
                unsafe { self.tile(strip / LANES, i, count, &mut tile) };
                let width = step.min(n - strip);
                for r in 0..count {
                    let values = &mut tile[r * step..r * step + width];
                    if self.w.factor() != 1.0 {
                        values.iter_mut().for_each(|v| *v *= self.w.factor());
                    }
                    if let Some(bias) = self.c.bias.filter(|_| !self.add) {
                        values.iter_mut().zip(&bias[strip..]).for_each(|(v, b)| *v += b);
                    }
                    // SAFETY: row i + r and `width` columns from `strip` lie in the result.
                    unsafe { store(values, self.c.c.add((i + r) * sc.row + strip * sc.col), sc.col, self.add) };
                }
                i += count;
            }
        }
        if let Some(after) = self.after {
            let c = self.c.c.wrapping_add(lines.start * sc.row + columns.start * sc.col);
            // SAFETY: the block is this task's.
            after(&mut unsafe { Finished::new(self.j, lines, columns, c, sc) });
        }
    }

    /// Rows `i..i + count` times the panels from `panel`.
    ///
    /// # Safety
    /// The rows and panels exist, and `count` is what `Machine::rows` gave.
    unsafe fn tile(&self, panel: usize, i: usize, count: usize, out: &mut [f32]) {
        let (kind, k) = (self.w.kind(), self.w.size().1);
        let (w, w_scales) = self.w.panel(panel);
        // Pointers to what the format does not have are not followed.
        let start = self.laid.map_or(std::ptr::null(), |w| w[i * rows::words(kind, 1, k)..].as_ptr());
        let words = blocks(k) * 8 * count;
        let scales = if kind.format.is_blocks() { blocks(k) * count } else { count };
        let (x, x_row, x_col) = match self.laid {
            Some(_) => (start.cast(), 1, count),
            None => (self.left.data.as_ptr().wrapping_add(i * self.left.at.row), self.left.at.row, self.left.at.col),
        };
        let tile = Tile {
            inner: if kind.is_whole() { blocks(k) } else { k },
            x,
            x_row,
            x_col,
            quants: start,
            scales: start.wrapping_add(words),
            starts: start.wrapping_add(words + scales),
            w,
            w_scales,
            out: out.as_mut_ptr(),
        };
        debug_assert!(out.len() >= count * self.step());
        // SAFETY: the layout of both operands was made for these sizes; the rest is promised.
        unsafe { self.machine.run(kind, count, &tile) }
    }
}

/// # Safety
/// As many places as there are values, `col` apart, may be written.
unsafe fn store(values: &[f32], c: *mut f32, col: usize, add: bool) {
    // SAFETY: by the caller's promise.
    unsafe {
        if add {
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
