//! Convolutions over planes (a one-dimensional one is a plane of height 1): patches of the input
//! are laid out as columns, a tile of output positions at a time so that they stay in cache, and
//! multiplied by the filters (Chellapilla et al. 2006). A kernel of one position needs no
//! copying; one channel per group is done directly.
//!
//! Threads take output tiles, or whole images where tiles overlap in the result; they share a product
//! where it is large or tasks are few.

mod depthwise;

use super::gemm::{Matrix, gemm_raw, gemm_scratch, reach};
use super::parts::Parts;
use super::simd::level;
use crate::pool::Pool;

/// Sizes of a convolution; the pairs are of rows and columns.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Input channels of a group.
    pub channels: usize,
    /// Output channels of a group.
    pub filters: usize,
    /// Input plane.
    pub input: [usize; 2],
    /// Kernel.
    pub kernel: [usize; 2],
    /// Output plane.
    pub output: [usize; 2],
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Zeros before the first row and column.
    pub before: [usize; 2],
    /// Steps between kernel entries.
    pub dilation: [usize; 2],
    /// As of products ([`Product::alike`](super::gemm::Product::alike)): no output depends on how many others there
    /// are.
    pub alike: bool,
}

/// Floats of columns that one thread works on: 256 KiB.
const TILE: usize = 1 << 16;

impl Conv {
    fn plane_in(&self) -> usize {
        self.input[0] * self.input[1]
    }
    fn plane_out(&self) -> usize {
        self.output[0] * self.output[1]
    }
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Values in a patch of a group.
    fn patch(&self) -> usize {
        self.channels * self.taps()
    }
    /// Output positions per tile: all where nothing is laid out.
    fn tile(&self) -> usize {
        if self.pointwise() {
            return self.plane_out();
        }
        (TILE / self.patch().max(1)).next_multiple_of(16).clamp(16, self.plane_out().max(16))
    }
    fn tiles(&self) -> usize {
        self.plane_out().div_ceil(self.tile().max(1))
    }
    /// The input planes are the columns already.
    fn pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == [1; 2] && self.before == [0; 2] && self.input == self.output
    }
    fn direct(&self) -> bool {
        self.channels == 1 && self.groups > 1
    }
    /// Floats of columns per thread.
    fn columns(&self) -> usize {
        if self.pointwise() || self.direct() { 0 } else { self.patch() * self.tile() }
    }

    /// Floats of a thread's matrix products.
    fn packing(&self) -> usize {
        let (f, p, t) = (self.filters, self.patch(), self.tile());
        if self.direct() {
            0
        } else {
            [(f, t, p), (p, t, f), (f, p, t)].map(gemm_scratch).into_iter().max().unwrap_or(0)
        }
    }

    /// Scratch floats of [`forward`] and [`input_grad`] on so many threads.
    pub fn scratch(&self, threads: usize) -> usize {
        threads
            * if self.direct() {
                {
                    let back = if depthwise::takes(self) { depthwise::back_scratch(self) } else { 0 };
                    depthwise::scratch(self).max(back)
                }
            } else {
                self.columns() + self.packing()
            }
    }
    /// Scratch floats of [`weight_grad`].
    pub fn weight_scratch(&self, threads: usize) -> usize {
        let each = if self.direct() { depthwise::weight_scratch(self) } else { self.columns() + self.packing() };
        threads.min(self.groups) * each
    }

    /// Outputs along `axis` whose input at kernel position `tap` exists.
    #[inline(always)]
    fn valid(&self, axis: usize, tap: usize) -> (usize, usize) {
        let (s, p) = (self.stride[axis], self.before[axis]);
        let shift = tap * self.dilation[axis];
        let lo = p.saturating_sub(shift).div_ceil(s);
        let hi = (self.input[axis] + p).saturating_sub(shift).div_ceil(s).min(self.output[axis]);
        (lo.min(hi), hi)
    }

    /// The input position of output `o` at kernel position `tap`, which is valid.
    #[inline(always)]
    fn source(&self, axis: usize, o: usize, tap: usize) -> usize {
        o * self.stride[axis] + tap * self.dilation[axis] - self.before[axis]
    }

    /// Calls `f(row of the columns, input offset, output range)` for every stretch of one output row
    /// within the positions `from..to` that has inputs in a channel, next to each other at the
    /// stride.
    #[inline(always)]
    fn stretches(&self, from: usize, to: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
        let width = self.output[1];
        for ky in 0..self.kernel[0] {
            let (row_lo, row_hi) = self.valid(0, ky);
            for kx in 0..self.kernel[1] {
                let (lo, hi) = self.valid(1, kx);
                for oy in row_lo.max(from / width)..row_hi.min(to.div_ceil(width)) {
                    let first = lo.max(from.saturating_sub(oy * width));
                    let last = hi.min(to - oy * width);
                    if first < last {
                        let at = self.source(0, oy, ky) * self.input[1] + self.source(1, first, kx);
                        f(ky * self.kernel[1] + kx, at, oy * width + first, oy * width + last);
                    }
                }
            }
        }
    }

    /// Lays out the patches of positions `from..to` of a group `x` as columns.
    fn gather(&self, pool: &Pool, x: &[f32], (from, to): (usize, usize), columns: &mut [f32]) {
        let (n, s) = (to - from, self.stride[1]);
        pool.rows(&mut columns[..self.patch() * n], self.taps() * n, 1, |channel, columns| {
            for (c, columns) in columns.chunks_exact_mut(self.taps() * n).enumerate() {
                let x = &x[(channel + c) * self.plane_in()..][..self.plane_in()];
                columns.fill(0.0);
                self.stretches(from, to, |row, at, first, last| {
                    let out = &mut columns[row * n + first - from..row * n + last - from];
                    if s == 1 {
                        out.copy_from_slice(&x[at..at + last - first]);
                    } else {
                        out.iter_mut().zip(x[at..].iter().step_by(s)).for_each(|(o, x)| *o = *x);
                    }
                });
            }
        });
    }

    /// Adds columns back to where their patches came from.
    fn scatter(&self, pool: &Pool, columns: &[f32], (from, to): (usize, usize), x: &mut [f32]) {
        let (n, s) = (to - from, self.stride[1]);
        pool.rows(x, self.plane_in(), 1, |channel, x| {
            for (c, x) in x.chunks_exact_mut(self.plane_in()).enumerate() {
                let columns = &columns[(channel + c) * self.taps() * n..][..self.taps() * n];
                self.stretches(from, to, |row, at, first, last| {
                    let source = &columns[row * n + first - from..row * n + last - from];
                    if s == 1 {
                        x[at..at + last - first].iter_mut().zip(source).for_each(|(x, c)| *x += c);
                    } else {
                        x[at..].iter_mut().step_by(s).zip(source).for_each(|(x, c)| *x += c);
                    }
                });
            }
        });
    }

    fn range(&self, tile: usize) -> (usize, usize) {
        let from = tile * self.tile();
        (from, (from + self.tile()).min(self.plane_out()))
    }
}

impl Conv {
    /// Calls `f(slot, task)` for all tasks: on one thread each, or one after the other on all threads
    /// where a task is large or tasks are few. The results are the same.
    fn share(&self, pool: &Pool, slots: usize, tasks: usize, f: impl Fn(usize, usize) + Sync) {
        let work = self.filters * self.patch() * self.tile();
        if tasks < slots || (self.pointwise() && work > 1 << 24) {
            return (0..tasks).for_each(|task| f(0, task));
        }
        in_slots(pool, slots, tasks, f);
    }
}

/// Calls `f(slot, task)` for all tasks, each slot on one thread at a time.
fn in_slots(pool: &Pool, slots: usize, tasks: usize, f: impl Fn(usize, usize) + Sync) {
    let slots = slots.min(tasks);
    pool.run(slots, &|slot| (slot..tasks).step_by(slots).for_each(|task| f(slot, task)));
}

/// `y = conv(x, w) + bias`. `threads` is the number that the scratch was sized for.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    pool: &Pool,
    conv: &Conv,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plane_in, plane_out, patch) = (conv.plane_in(), conv.plane_out(), conv.patch());
    if y.is_empty() {
        return;
    }
    if conv.direct() {
        return depthwise::forward(pool, conv, x, w, bias, y, scratch, threads);
    }
    let (y, scratch) = (Parts::new(y), Parts::new(scratch));
    conv.share(pool, threads, conv.batch * conv.groups * conv.tiles(), |slot, task| {
        let (image, range) = (task / conv.tiles(), conv.range(task % conv.tiles()));
        let (g, n) = (image % conv.groups, range.1 - range.0);
        let x = &x[image * conv.channels * plane_in..][..conv.channels * plane_in];
        // SAFETY: each slot has its own scratch.
        let columns = unsafe { scratch.get(slot * conv.scratch(1), conv.scratch(1)) };
        let (columns, packing) = columns.split_at_mut(conv.columns());
        let (b, sb) = if conv.pointwise() {
            (x, Matrix { row: plane_in, col: 1 })
        } else {
            conv.gather(pool, x, range, columns);
            (&*columns, Matrix { row: n, col: 1 })
        };
        let place = image * conv.filters * plane_out + range.0;
        for f in 0..conv.filters {
            // SAFETY: tasks write distinct positions of distinct planes.
            let row = unsafe { y.get(place + f * plane_out, n) };
            row.fill(bias.map_or(0.0, |bias| bias[g * conv.filters + f]));
        }
        let a = &w[g * conv.filters * patch..][..conv.filters * patch];
        let (sa, sc) = (Matrix { row: patch, col: 1 }, Matrix { row: plane_out, col: 1 });
        let c = y.at(place, reach(conv.filters, n, sc));
        // SAFETY: `a` and `b` hold whole matrices, `c` was checked, and no other task writes it.
        unsafe { gemm_raw(pool, (conv.filters, n, patch), a, sa, b, sb, c, sc, (true, conv.alike), packing) };
    });
}

/// The gradient by the input, plus `bias` over input channels (a transposed convolution).
#[allow(clippy::too_many_arguments)]
pub fn input_grad(
    pool: &Pool,
    conv: &Conv,
    y: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    x: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plane_in, plane_out, patch) = (conv.plane_in(), conv.plane_out(), conv.patch());
    let (whole_in, whole_out) = (conv.channels * plane_in, conv.filters * plane_out);
    if x.is_empty() {
        return;
    }
    if conv.direct() && depthwise::takes(conv) && !y.is_empty() {
        return depthwise::input_grad(level(), pool, conv, y, w, bias, x, scratch, threads);
    }
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    conv.share(pool, threads, conv.batch * conv.groups, |slot, image| {
        let g = image % conv.groups;
        // SAFETY: tasks have distinct images, slots distinct scratch.
        let (x, columns) =
            unsafe { (x.get(image * whole_in, whole_in), scratch.get(slot * conv.scratch(1), conv.scratch(1))) };
        let (columns, packing) = columns.split_at_mut(conv.columns());
        for (c, plane) in x.chunks_mut(plane_in).enumerate() {
            plane.fill(bias.map_or(0.0, |bias| bias[g * conv.channels + c]));
        }
        let y = &y[image * whole_out..][..whole_out];
        let w = &w[g * conv.filters * patch..][..conv.filters * patch];
        if conv.direct() {
            for (y, w) in y.chunks(plane_out.max(1)).zip(w.chunks(patch)) {
                direct_input_grad(conv, y, w, x);
            }
            return;
        }
        let sa = Matrix { row: 1, col: patch };
        for tile in 0..conv.tiles() {
            let (from, to) = conv.range(tile);
            let n = to - from;
            let sb = Matrix { row: plane_out, col: 1 };
            let (c, sc) = if conv.pointwise() {
                (x[from..].as_mut_ptr(), Matrix { row: plane_in, col: 1 })
            } else {
                (columns.as_mut_ptr(), Matrix { row: n, col: 1 })
            };
            // SAFETY: the slices above hold whole matrices: `patch` rows of `n` columns at `c`.
            unsafe {
                let y = &y[from.min(y.len())..];
                gemm_raw(pool, (patch, n, conv.filters), w, sa, y, sb, c, sc, (conv.pointwise(), conv.alike), packing);
            }
            if !conv.pointwise() {
                conv.scatter(pool, columns, (from, to), x);
            }
        }
    });
}

/// The gradient by the weight.
pub fn weight_grad(pool: &Pool, conv: &Conv, x: &[f32], y: &[f32], w: &mut [f32], scratch: &mut [f32], threads: usize) {
    let (plane_in, plane_out, patch) = (conv.plane_in(), conv.plane_out(), conv.patch());
    w.fill(0.0);
    if conv.direct() {
        if !y.is_empty() {
            depthwise::weight_grad(pool, conv, x, y, w, scratch, threads);
        }
        return;
    }
    // A group's gradient is summed in the order of images and tiles, whatever the threads.
    let size = conv.filters * patch;
    let room = conv.columns() + conv.packing();
    let (w, scratch) = (Parts::new(w), Parts::new(scratch));
    conv.share(pool, threads.min(conv.groups), conv.groups, |slot, g| {
        // SAFETY: slots have distinct scratch, groups distinct weights.
        let (w, scratch) = unsafe { (w.get(g * size, size), scratch.get(slot * room, room)) };
        let (columns, packing) = scratch.split_at_mut(conv.columns());
        for task in 0..conv.batch * conv.tiles() {
            let (b, range) = (task / conv.tiles(), conv.range(task % conv.tiles()));
            let (image, n) = (b * conv.groups + g, range.1 - range.0);
            let x = &x[image * conv.channels * plane_in..][..conv.channels * plane_in];
            let y = &y[image * conv.filters * plane_out + range.0..];
            let (columns, sb) = if conv.pointwise() {
                (x, Matrix { row: 1, col: plane_in })
            } else {
                conv.gather(pool, x, range, columns);
                (&*columns, Matrix { row: 1, col: n })
            };
            let (sa, sc) = (Matrix { row: plane_out, col: 1 }, Matrix { row: patch, col: 1 });
            let c = w.as_mut_ptr();
            // SAFETY: the slices hold whole matrices.
            unsafe { gemm_raw(pool, (conv.filters, patch, n), y, sa, columns, sb, c, sc, (true, false), packing) };
        }
    });
}

#[inline(always)]
fn direct_input_grad_body(conv: &Conv, y: &[f32], w: &[f32], x: &mut [f32]) {
    let s = conv.stride[1];
    conv.stretches(0, conv.plane_out(), |row, at, first, last| {
        let (w, y) = (w[row], &y[first..last]);
        if s == 1 {
            for (x, y) in x[at..].iter_mut().zip(y) {
                *x += w * y;
            }
        } else {
            for (x, y) in x[at..].iter_mut().step_by(s).zip(y) {
                *x += w * y;
            }
        }
    });
}

crate::dispatch! { fn direct_input_grad(conv: &Conv, y: &[f32], w: &[f32], x: &mut [f32]) = direct_input_grad_body; }
