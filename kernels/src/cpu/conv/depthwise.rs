//! Convolutions of one channel with its own filters, as in separable layers.
//!
//! Sums for many outputs stay in registers while the taps go by. A vector of inputs that was loaded
//! at offset `i` serves the outputs in front of it with tap `i`, those a vector earlier with the tap
//! one vector later, and so on: kernels of 33 to 87 taps (QuartzNet, Kriman et al. 2019) multiply
//! two to six times per load, where tap after tap would wait for unaligned loads.
//!
//! A task copies its plane once between zeros, apart by the remainders of the stride, so that every
//! load is of neighbours and no tap asks whether its input exists.

mod back;
#[cfg(test)]
mod tests;

pub(super) use back::{input_grad, scratch as back_scratch, takes};

use super::Conv;
use crate::cpu::parts::Parts;
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::{Vector, at_level};
use crate::pool::Pool;

/// Outputs are computed in whole vectors of every level.
const LANES: usize = 16;

/// A plane between zeros: its rows, apart by the remainder of the stride.
struct Padded {
    /// Values of one remainder of a row.
    phase: usize,
    /// Outputs of a row, in whole vectors.
    wide: usize,
}

impl Padded {
    fn of(conv: &Conv) -> Padded {
        let wide = conv.output[1].next_multiple_of(LANES);
        let span = (conv.kernel[1].max(1) - 1) * conv.dilation[1];
        Padded { phase: wide + span / conv.stride[1] + LANES, wide }
    }

    fn row(&self, conv: &Conv) -> usize {
        self.phase * conv.stride[1]
    }

    /// Scratch values of a task: the plane and one row of outputs.
    fn room(&self, conv: &Conv) -> usize {
        self.row(conv) * conv.input[0] + self.wide
    }

    /// Copies a plane.
    fn fill(&self, conv: &Conv, x: &[f32], out: &mut [f32]) {
        let (n, s, before) = (conv.input[1], conv.stride[1], conv.before[1]);
        if n == 0 {
            out.fill(0.0);
        }
        for (x, out) in x.chunks_exact(n.max(1)).zip(out.chunks_exact_mut(self.row(conv))) {
            for (p, out) in out.chunks_exact_mut(self.phase).enumerate() {
                // Place `k` holds what is at `k s + p` between the zeros.
                let first = before.saturating_sub(p).div_ceil(s).min(self.phase);
                let end = (n + before).saturating_sub(p).div_ceil(s).clamp(first, self.phase);
                out[..first].fill(0.0);
                out[end..].fill(0.0);
                if first < end {
                    let from = &x[first * s + p - before..];
                    if s == 1 {
                        out[first..end].copy_from_slice(&from[..end - first]);
                    } else {
                        out[first..end].iter_mut().zip(from.iter().step_by(s)).for_each(|(o, x)| *o = *x);
                    }
                }
            }
        }
    }
}

/// Scratch values for a thread.
pub(super) fn scratch(conv: &Conv) -> usize {
    Padded::of(conv).room(conv)
}

/// `y = conv(x, w) + bias`
pub(super) fn forward(
    pool: &Pool,
    conv: &Conv,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    forward_at(level(), pool, conv, x, w, bias, y, scratch, threads);
}

fn forward_at(
    level: Level,
    pool: &Pool,
    conv: &Conv,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plane_in, plane_out, taps) = (conv.plane_in(), conv.plane_out(), conv.taps());
    let padded = Padded::of(conv);
    let room = padded.room(conv);
    let (y, scratch) = (Parts::new(y), Parts::new(scratch));
    super::in_slots(pool, threads, conv.batch * conv.groups, |slot, image| {
        // SAFETY: slots have distinct scratch, images distinct results.
        let (scratch, y) = unsafe {
            (scratch.get(slot * room, room), y.get(image * conv.filters * plane_out, conv.filters * plane_out))
        };
        let (plane, sums) = scratch.split_at_mut(room - padded.wide);
        padded.fill(conv, &x[image * plane_in..][..plane_in], plane);
        for (f, y) in y.chunks_exact_mut(plane_out).enumerate() {
            let o = image % conv.groups * conv.filters + f;
            let w = &w[o * taps..][..taps];
            for (oy, y) in y.chunks_exact_mut(conv.output[1]).enumerate() {
                sums.fill(bias.map_or(0.0, |bias| bias[o]));
                one_row(level, conv, &padded, oy, plane, w, sums);
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    });
}

/// Adds all taps for one row of outputs.
fn one_row(level: Level, conv: &Conv, padded: &Padded, oy: usize, plane: &[f32], w: &[f32], sums: &mut [f32]) {
    let ([_, s], [dy, d], [_, width]) = (conv.stride, conv.dilation, conv.kernel);
    // Rows of taps whose inputs exist.
    let (at, before) = (oy * conv.stride[0], conv.before[0]);
    let end = (conv.input[0] + before).saturating_sub(at).div_ceil(dy).min(conv.kernel[0]);
    let first = before.saturating_sub(at).div_ceil(dy).min(end);
    if first == end {
        return;
    }
    let plane = &plane[(at + first * dy - before) * padded.row(conv)..];
    let next = dy * padded.row(conv);
    let mut some = |phase: usize, from: usize, first_tap: usize, step: usize, d: usize| {
        let x = &plane[phase * padded.phase + from..];
        let taps = Taps {
            w: &w[first * width + first_tap..],
            step,
            count: (width - first_tap).div_ceil(step),
            apart: d,
            rows: end - first,
            next_row: width,
        };
        let reach = (taps.rows - 1) * next + (taps.count - 1) * d + padded.wide;
        let last = (taps.rows - 1) * width + (taps.count - 1) * step;
        assert!(reach <= x.len() && last < taps.w.len() && padded.wide <= sums.len(), "inputs are cut off");
        // SAFETY: the level is the processor's; what is read and written was checked.
        unsafe { add(level, x.as_ptr(), next, taps, &mut sums[..padded.wide]) };
    };
    match (s, d) {
        (1, _) => some(0, 0, 0, 1, d),
        // Taps whose inputs have the same remainder are neighbours there.
        (_, 1) => (0..s.min(width)).for_each(|p| some(p, 0, p, s, 1)),
        _ => (0..width).for_each(|t| some(t * d % s, t * d / s, t, width, 1)),
    }
}

/// Rows of taps.
#[derive(Clone, Copy)]
struct Taps<'a> {
    w: &'a [f32],
    /// Between the weights of taps, and the inputs of taps.
    step: usize,
    apart: usize,
    count: usize,
    rows: usize,
    /// Between rows of weights.
    next_row: usize,
}

/// Adds the taps of all rows, whose inputs are `next` apart, to whole vectors of outputs.
///
/// # Safety
/// The vector's instructions exist, and inputs lie at `x`.
#[inline(always)]
unsafe fn add_body<V: Vector>(x: *const f32, next: usize, taps: Taps, y: &mut [f32]) {
    let vectors = y.len() / V::LANES;
    // Taps so many apart see inputs a vector apart.
    let period = if V::LANES.is_multiple_of(taps.apart) { V::LANES / taps.apart } else { taps.count };
    let y = y.as_mut_ptr();
    let mut v = 0;
    // SAFETY: vectors of outputs lie in `y`; inputs at `x` by the caller's promise.
    unsafe {
        while v < vectors {
            let (x, y) = (x.add(v * V::LANES), y.add(v * V::LANES));
            v += match vectors - v {
                16.. if V::WIDE => block::<V, 16>(x, next, &taps, period, y),
                8.. => block::<V, 8>(x, next, &taps, period, y),
                4.. => block::<V, 4>(x, next, &taps, period, y),
                2.. => block::<V, 2>(x, next, &taps, period, y),
                _ => block::<V, 1>(x, next, &taps, period, y),
            };
        }
    }
}
at_level! {
    unsafe fn add(x: *const f32, next: usize, taps: Taps, y: &mut [f32]) = add_body;
}

/// All taps for `N` vectors of outputs; says how many vectors.
///
/// # Safety
/// As for [`add_body`].
#[inline(always)]
unsafe fn block<V: Vector, const N: usize>(
    x: *const f32,
    next: usize,
    taps: &Taps,
    period: usize,
    y: *mut f32,
) -> usize {
    // SAFETY: by the caller's promise; weights lie in their slice.
    unsafe {
        let mut acc = [V::splat(0.0); N];
        for n in 0..N {
            acc[n] = V::load(y.add(n * V::LANES));
        }
        let step = period * taps.step;
        for row in 0..taps.rows {
            let (x, w) = (x.add(row * next), taps.w.as_ptr().add(row * taps.next_row));
            if taps.count <= period {
                // No two taps see inputs a vector apart: small kernels.
                for t in 0..taps.count {
                    turn::<V, N, 1>(x.add(t * taps.apart), w.add(t * taps.step), 0, &mut acc);
                }
                continue;
            }
            for i in 0..period {
                let mut t = i;
                while t < taps.count {
                    let (x, w) = (x.add(t * taps.apart), w.add(t * taps.step));
                    let left = taps.count - t;
                    t += period
                        * if left > 3 * period {
                            turn::<V, N, 4>(x, w, step, &mut acc)
                        } else if left > 2 * period {
                            turn::<V, N, 3>(x, w, step, &mut acc)
                        } else if left > period {
                            turn::<V, N, 2>(x, w, step, &mut acc)
                        } else {
                            turn::<V, N, 1>(x, w, step, &mut acc)
                        };
                }
            }
        }
        for n in 0..N {
            acc[n].store(y.add(n * V::LANES));
        }
    }
    N
}

/// `J` taps whose inputs are a vector apart; says how many.
///
/// # Safety
/// As for [`add_body`].
#[inline(always)]
unsafe fn turn<V: Vector, const N: usize, const J: usize>(
    x: *const f32,
    w: *const f32,
    next: usize,
    acc: &mut [V; N],
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut taps = [V::splat(0.0); J];
        for j in 0..J {
            taps[j] = V::splat(*w.add(j * next));
        }
        // Neighbouring outputs load the same inputs again: the compiler keeps them.
        for n in 0..N {
            for j in 0..J {
                acc[n] = taps[j].fma(V::load(x.add((n + j) * V::LANES)), acc[n]);
            }
        }
    }
    J
}

/// Scratch values of [`weight_grad`] for a thread: the plane, and the gradient by the result.
pub(super) fn weight_scratch(conv: &Conv) -> usize {
    scratch(conv) + Padded::of(conv).wide * conv.output[0]
}

/// Adds the gradient by the weight; a group's is summed in the order of images.
pub(super) fn weight_grad(
    pool: &Pool,
    conv: &Conv,
    x: &[f32],
    y: &[f32],
    w: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    weight_grad_at(level(), pool, conv, x, y, w, scratch, threads);
}

fn weight_grad_at(
    level: Level,
    pool: &Pool,
    conv: &Conv,
    x: &[f32],
    y: &[f32],
    w: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plane_in, plane_out, taps) = (conv.plane_in(), conv.plane_out(), conv.taps());
    let (padded, room) = (Padded::of(conv), weight_scratch(conv));
    let (w, scratch) = (Parts::new(w), Parts::new(scratch));
    super::in_slots(pool, threads, conv.groups, |slot, g| {
        // SAFETY: slots have distinct scratch, groups distinct weights.
        let (scratch, w) =
            unsafe { (scratch.get(slot * room, room), w.get(g * conv.filters * taps, conv.filters * taps)) };
        let (plane, given) = scratch.split_at_mut(room - padded.wide * conv.output[0]);
        for b in 0..conv.batch {
            let image = b * conv.groups + g;
            padded.fill(conv, &x[image * plane_in..][..plane_in], plane);
            for (f, w) in w.chunks_exact_mut(taps).enumerate() {
                let y = &y[(image * conv.filters + f) * plane_out..][..plane_out];
                for (y, given) in y.chunks_exact(conv.output[1]).zip(given.chunks_exact_mut(padded.wide)) {
                    given[..y.len()].copy_from_slice(y);
                    given[y.len()..].fill(0.0);
                }
                for (ky, w) in w.chunks_exact_mut(conv.kernel[1]).enumerate() {
                    row_of_taps(level, conv, &padded, ky, plane, given, w);
                }
            }
        }
    });
}

/// Adds the gradient of one row of taps.
fn row_of_taps(level: Level, conv: &Conv, padded: &Padded, ky: usize, plane: &[f32], given: &[f32], w: &mut [f32]) {
    let (first, end) = conv.valid(0, ky);
    if first == end {
        return;
    }
    let (s, d, row) = (conv.stride[1], conv.dilation[1], conv.output[1]);
    let plane = &plane[conv.source(0, first, ky) * padded.row(conv)..];
    let next = conv.stride[0] * padded.row(conv);
    let given = &given[first * padded.wide..end * padded.wide];
    let width = w.len();
    let mut some = |phase: usize, from: usize, first_tap: usize, step: usize, d: usize| {
        let x = &plane[phase * padded.phase + from..];
        let count = (width - first_tap).div_ceil(step);
        let reach = (end - first - 1) * next + (count - 1) * d + padded.wide;
        assert!(reach <= x.len() && first_tap + (count - 1) * step < width, "inputs are cut off");
        // SAFETY: the level is the processor's; what is read and written was checked.
        unsafe { dots(level, x.as_ptr(), next, (given, padded.wide, row), (&mut w[first_tap..], step, count), d) };
    };
    match (s, d) {
        (1, _) => some(0, 0, 0, 1, d),
        (_, 1) => (0..s.min(width)).for_each(|p| some(p, 0, p, s, 1)),
        _ => (0..width).for_each(|t| some(t * d % s, t * d / s, t, width, 1)),
    }
}

/// Ones for the lanes of a vector that count, and then what is less: read from where the lanes end.
static LANES_THERE: [f32; 2 * LANES] = {
    let mut there = [1.0; 2 * LANES];
    let mut i = LANES;
    while i < 2 * LANES {
        there[i] = -1.0;
        i += 1;
    }
    there
};

/// Adds to each of `count` weights, `step` apart, the sum of products of all rows `given`, of `row`
/// values `wide` apart, with inputs `d` later for each weight.
///
/// # Safety
/// The vector's instructions exist, and inputs lie at `x`.
#[inline(always)]
unsafe fn dots_body<V: Vector>(
    x: *const f32,
    next: usize,
    given: (&[f32], usize, usize),
    (w, step, count): (&mut [f32], usize, usize),
    d: usize,
) {
    let mut t = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        while t < count {
            let (x, w) = (x.add(t * d), w.as_mut_ptr().add(t * step));
            t += match count - t {
                8.. => some_dots::<V, 8>(x, next, given, (w, step), d),
                4.. => some_dots::<V, 4>(x, next, given, (w, step), d),
                _ => some_dots::<V, 1>(x, next, given, (w, step), d),
            };
        }
    }
}
at_level! {
    unsafe fn dots(x: *const f32, next: usize, given: (&[f32], usize, usize), w: (&mut [f32], usize, usize), d: usize) = dots_body;
}

/// `T` weights; says how many.
///
/// # Safety
/// As for [`dots_body`].
#[inline(always)]
unsafe fn some_dots<V: Vector, const T: usize>(
    x: *const f32,
    next: usize,
    (given, wide, row): (&[f32], usize, usize),
    (w, step): (*mut f32, usize),
    d: usize,
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let (mut acc, zero) = ([V::splat(0.0); T], V::splat(0.0));
        let whole = row / V::LANES * V::LANES;
        let there = V::load(LANES_THERE.as_ptr().add(LANES - (row - whole)));
        for r in 0..given.len() / wide {
            let (x, given) = (x.add(r * next), given.as_ptr().add(r * wide));
            for v in (0..whole).step_by(V::LANES) {
                let g = V::load(given.add(v));
                for t in 0..T {
                    acc[t] = g.fma(V::load(x.add(v + t * d)), acc[t]);
                }
            }
            if whole < row {
                let g = V::load(given.add(whole));
                for t in 0..T {
                    // An input behind the last output may be infinite, and nothing times that is
                    // not nothing.
                    let x = V::load(x.add(whole + t * d)).unless_below(there, zero);
                    acc[t] = g.fma(x, acc[t]);
                }
            }
        }
        for t in 0..T {
            *w.add(t * step) += acc[t].sum();
        }
    }
    T
}
