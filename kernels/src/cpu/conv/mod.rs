//! Convolutions over planes (a one-dimensional one is a plane of height 1): patches of the input
//! are laid out as columns, a tile of output positions at a time so that they stay in cache, and
//! multiplied by the filters (Chellapilla et al. 2006). A kernel of one position needs no
//! copying; one channel per group is done directly.
//!
//! Threads take output tiles, or whole images where tiles overlap in the result.

mod depthwise;

use super::gemm::{Matrix, gemm_raw, gemm_scratch, reach};
use super::parts::Parts;
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
    /// Output positions per tile.
    fn tile(&self) -> usize {
        (TILE / self.patch().max(1)).next_multiple_of(16).clamp(16, self.plane_out().max(16))
    }
    fn tiles(&self) -> usize {
        self.plane_out().div_ceil(self.tile())
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
        threads * if self.direct() { depthwise::scratch(self) } else { self.columns() + self.packing() }
    }
    /// Scratch floats of [`weight_grad`].
    pub fn weight_scratch(&self, threads: usize) -> usize {
        if self.direct() {
            0
        } else {
            threads * (self.columns() + self.packing() + self.groups * self.filters * self.patch())
        }
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

    /// Calls `f(row of the columns, input offset in the group, output range)` for every stretch
    /// of one output row within the positions `from..to` that has inputs, next to each other at
    /// the stride.
    #[inline(always)]
    fn stretches(&self, from: usize, to: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
        let width = self.output[1];
        for c in 0..self.channels {
            for ky in 0..self.kernel[0] {
                let (row_lo, row_hi) = self.valid(0, ky);
                for kx in 0..self.kernel[1] {
                    let (lo, hi) = self.valid(1, kx);
                    let row = (c * self.kernel[0] + ky) * self.kernel[1] + kx;
                    for oy in row_lo.max(from / width)..row_hi.min(to.div_ceil(width)) {
                        let first = lo.max(from.saturating_sub(oy * width));
                        let last = hi.min(to - oy * width);
                        if first < last {
                            let at = self.source(0, oy, ky) * self.input[1] + self.source(1, first, kx);
                            f(row, c * self.plane_in() + at, oy * width + first, oy * width + last);
                        }
                    }
                }
            }
        }
    }

    /// Lays out the patches of positions `from..to` of a group `x` as columns.
    fn gather(&self, x: &[f32], from: usize, to: usize, columns: &mut [f32]) {
        let (n, s) = (to - from, self.stride[1]);
        columns[..self.patch() * n].fill(0.0);
        self.stretches(from, to, |row, at, first, last| {
            let out = &mut columns[row * n + first - from..row * n + last - from];
            if s == 1 {
                out.copy_from_slice(&x[at..at + last - first]);
            } else {
                out.iter_mut().zip(x[at..].iter().step_by(s)).for_each(|(o, x)| *o = *x);
            }
        });
    }

    /// Adds columns back to where their patches came from.
    fn scatter(&self, columns: &[f32], from: usize, to: usize, x: &mut [f32]) {
        let (n, s) = (to - from, self.stride[1]);
        self.stretches(from, to, |row, at, first, last| {
            let source = &columns[row * n + first - from..row * n + last - from];
            if s == 1 {
                x[at..at + last - first].iter_mut().zip(source).for_each(|(x, c)| *x += c);
            } else {
                x[at..].iter_mut().step_by(s).zip(source).for_each(|(x, c)| *x += c);
            }
        });
    }

    fn range(&self, tile: usize) -> (usize, usize) {
        let from = tile * self.tile();
        (from, (from + self.tile()).min(self.plane_out()))
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
    in_slots(pool, threads, conv.batch * conv.groups * conv.tiles(), |slot, task| {
        let (image, (from, to)) = (task / conv.tiles(), conv.range(task % conv.tiles()));
        let (g, n) = (image % conv.groups, to - from);
        let x = &x[image * conv.channels * plane_in..][..conv.channels * plane_in];
        // SAFETY: each slot has its own scratch.
        let columns = unsafe { scratch.get(slot * conv.scratch(1), conv.scratch(1)) };
        let (columns, packing) = columns.split_at_mut(conv.columns());
        let (b, sb) = if conv.pointwise() {
            (&x[from..], Matrix { row: plane_in, col: 1 })
        } else {
            conv.gather(x, from, to, columns);
            (&*columns, Matrix { row: n, col: 1 })
        };
        let place = image * conv.filters * plane_out + from;
        for f in 0..conv.filters {
            // SAFETY: tasks write distinct positions of distinct planes.
            let row = unsafe { y.get(place + f * plane_out, n) };
            row.fill(bias.map_or(0.0, |bias| bias[g * conv.filters + f]));
        }
        let a = &w[g * conv.filters * patch..][..conv.filters * patch];
        let (sa, sc) = (Matrix { row: patch, col: 1 }, Matrix { row: plane_out, col: 1 });
        let c = y.at(place, reach(conv.filters, n, sc));
        // SAFETY: `a` and `b` hold whole matrices, `c` was checked, and no other task writes it.
        unsafe { gemm_raw(pool, (conv.filters, n, patch), a, sa, b, sb, c, sc, true, packing) };
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
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    in_slots(pool, threads, conv.batch * conv.groups, |slot, image| {
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
                gemm_raw(pool, (patch, n, conv.filters), w, sa, y, sb, c, sc, conv.pointwise(), packing);
            }
            if !conv.pointwise() {
                conv.scatter(columns, from, to, x);
            }
        }
    });
}

/// The gradient by the weight.
pub fn weight_grad(pool: &Pool, conv: &Conv, x: &[f32], y: &[f32], w: &mut [f32], scratch: &mut [f32], threads: usize) {
    let (plane_in, plane_out, patch) = (conv.plane_in(), conv.plane_out(), conv.patch());
    let filters = conv.groups * conv.filters;
    w.fill(0.0);
    if conv.direct() {
        pool.rows(w, patch, 1, |first, block| {
            for (i, w) in block.chunks_mut(patch).enumerate() {
                for b in 0..conv.batch {
                    let x = &x[(b * conv.groups + (first + i) / conv.filters) * plane_in..][..plane_in];
                    direct_weight_grad(conv, x, &y[(b * filters + first + i) * plane_out..][..plane_out], w);
                }
            }
        });
        return;
    }
    let tasks = conv.batch * conv.tiles();
    let slots = threads.min(tasks);
    let size = conv.columns() + conv.packing() + w.len();
    let parts = Parts::new(&mut *scratch);
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (columns, rest) = unsafe { parts.get(slot * size, size) }.split_at_mut(conv.columns());
        let (packing, sum) = rest.split_at_mut(conv.packing());
        sum.fill(0.0);
        for task in (slot..tasks).step_by(slots) {
            let (b, (from, to)) = (task / conv.tiles(), conv.range(task % conv.tiles()));
            let n = to - from;
            for g in 0..conv.groups {
                let image = b * conv.groups + g;
                let x = &x[image * conv.channels * plane_in..][..conv.channels * plane_in];
                let y = &y[image * conv.filters * plane_out + from..];
                let (columns, sb) = if conv.pointwise() {
                    (&x[from..], Matrix { row: 1, col: plane_in })
                } else {
                    conv.gather(x, from, to, columns);
                    (&*columns, Matrix { row: 1, col: n })
                };
                let sum = &mut sum[g * conv.filters * patch..][..conv.filters * patch];
                let (sa, sc) = (Matrix { row: plane_out, col: 1 }, Matrix { row: patch, col: 1 });
                // SAFETY: the slices hold whole matrices.
                unsafe {
                    gemm_raw(pool, (conv.filters, patch, n), y, sa, columns, sb, sum.as_mut_ptr(), sc, true, packing);
                }
            }
        }
    });
    for slot in 0..slots {
        let sum = &scratch[(slot + 1) * size - w.len()..][..w.len()];
        w.iter_mut().zip(sum).for_each(|(w, s)| *w += s);
    }
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

#[inline(always)]
fn direct_weight_grad_body(conv: &Conv, x: &[f32], y: &[f32], w: &mut [f32]) {
    let s = conv.stride[1];
    conv.stretches(0, conv.plane_out(), |row, at, first, last| {
        let y = &y[first..last];
        if s > 1 {
            w[row] += y.iter().zip(x[at..].iter().step_by(s)).map(|(y, x)| y * x).sum::<f32>();
            return;
        }
        // Sixteen sums side by side: shorter chains and smaller rounding errors.
        let x = &x[at..at + y.len()];
        let mut sums = [0f32; 16];
        let ((y16, y_rest), (x16, x_rest)) = (y.as_chunks::<16>(), x.as_chunks::<16>());
        for (y, x) in y16.iter().zip(x16) {
            for i in 0..16 {
                sums[i] += y[i] * x[i];
            }
        }
        for (y, x) in y_rest.iter().zip(x_rest) {
            sums[0] += y * x;
        }
        // Halves onto each other, so that the additions do not wait for one another.
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
        }
        w[row] += sums[0];
    });
}

crate::dispatch! { fn direct_input_grad(conv: &Conv, y: &[f32], w: &[f32], x: &mut [f32]) = direct_input_grad_body; }
crate::dispatch! { fn direct_weight_grad(conv: &Conv, x: &[f32], y: &[f32], w: &mut [f32]) = direct_weight_grad_body; }
