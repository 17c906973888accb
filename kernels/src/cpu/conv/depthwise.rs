//! Convolutions of one channel with its own filters, as in separable layers.
//!
//! Sums for many outputs stay in registers while the taps go by. A vector of inputs that was loaded
//! at offset `i` serves the outputs in front of it with tap `i`, those a vector earlier with the tap
//! one vector later, and so on: kernels of 33 to 87 taps (QuartzNet, Kriman et al. 2019) multiply
//! two to six times per load, where tap after tap would wait for unaligned loads.
//!
//! A task copies its plane once between zeros, apart by the remainders of the stride, so that every
//! load is of neighbours and no tap asks whether its input exists.

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

/// Whether the gradient by the input is a convolution of one channel too, by the reversed filter.
pub(super) fn reverses(conv: &Conv) -> bool {
    conv.stride == [1; 2] && (0..2).all(|a| conv.before[a] <= span(conv, a))
}

/// Positions between the first tap and the last.
fn span(conv: &Conv, axis: usize) -> usize {
    (conv.kernel[axis].max(1) - 1) * conv.dilation[axis]
}

fn reversed(conv: &Conv) -> Conv {
    let before = [0, 1].map(|a| span(conv, a).saturating_sub(conv.before[a]));
    Conv { input: conv.output, output: conv.input, before, ..conv.clone() }
}

/// Scratch values of [`input_grad`] for a thread.
pub(super) fn back_scratch(conv: &Conv) -> usize {
    scratch(&reversed(conv)) + conv.taps()
}

/// The gradient by the input, plus `bias`, of a convolution that [`reverses`].
pub(super) fn input_grad(
    pool: &Pool,
    conv: &Conv,
    y: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    x: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    input_grad_at(level(), pool, conv, y, w, bias, x, scratch, threads);
}

fn input_grad_at(
    level: Level,
    pool: &Pool,
    conv: &Conv,
    y: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    x: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plane_in, plane_out, taps) = (conv.plane_in(), conv.plane_out(), conv.taps());
    let (back, room) = (reversed(conv), back_scratch(conv));
    let padded = Padded::of(&back);
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    super::in_slots(pool, threads, conv.batch * conv.groups, |slot, image| {
        // SAFETY: slots have distinct scratch, images distinct results.
        let (scratch, x) = unsafe { (scratch.get(slot * room, room), x.get(image * plane_in, plane_in)) };
        let (turned, rest) = scratch.split_at_mut(taps);
        let (plane, sums) = rest.split_at_mut(room - taps - padded.wide);
        x.fill(bias.map_or(0.0, |bias| bias[image % conv.groups]));
        sums.fill(0.0);
        for f in 0..conv.filters {
            let w = &w[(image % conv.groups * conv.filters + f) * taps..][..taps];
            turned.iter_mut().zip(w.iter().rev()).for_each(|(t, w)| *t = *w);
            padded.fill(&back, &y[(image * conv.filters + f) * plane_out..][..plane_out], plane);
            for (row, x) in x.chunks_exact_mut(conv.input[1]).enumerate() {
                sums[..x.len()].copy_from_slice(x);
                one_row(level, &back, &padded, row, plane, turned, sums);
                x.copy_from_slice(&sums[..x.len()]);
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
                16.. if V::ROWS == 12 => block::<V, 16>(x, next, &taps, period, y),
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
            for i in 0..period.min(taps.count) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::levels;

    #[test]
    fn every_level_agrees_with_the_definition() {
        let pools = [1, 2, 3].map(Pool::new);
        let mut seed = 1u32;
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % n
        };
        for _ in 0..120 {
            let one = below(2) == 0;
            let pair = |a: usize, b: usize| if one { [1, a] } else { [b, a] };
            let kernel = pair(1 + below(90), 1 + below(4));
            let stride = pair(1 + below(3), 1 + below(2));
            let dilation = pair([1, 1, 2, 3, 4][below(5)], 1 + below(2));
            let before = pair(below(40), below(3)).map(|b| if b == 1 { 0 } else { b });
            let before = if one { [0, before[1]] } else { before };
            let output = pair(1 + below(300), 1 + below(5));
            // Inputs may end early or late.
            let input = [0, 1].map(|a| {
                let reach = (output[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1;
                if one && a == 0 { 1 } else { reach.saturating_sub(before[a] + below(5)).max(1) + below(3) }
            });
            let (batch, groups, filters) = (1 + below(2), 1 + below(3), 1 + below(2));
            let conv = Conv { batch, groups, channels: 1, filters, input, kernel, output, stride, before, dilation };
            let mut values = |n: usize| (0..n).map(|_| below(2000) as f32 / 1000.0 - 1.0).collect::<Vec<f32>>();
            let (plane_in, plane_out) = (conv.plane_in(), conv.plane_out());
            let (x, w) = (values(batch * groups * plane_in), values(groups * filters * conv.taps()));
            let bias = values(groups * filters);
            let given = values(batch * groups * filters * plane_out);
            let mut want = vec![0f64; given.len()];
            let mut want_x: Vec<f64> = (0..x.len()).map(|i| bias[i / plane_in.max(1) % groups] as f64).collect();
            for (i, want) in want.iter_mut().enumerate() {
                let (o, b) = (i / plane_out % (groups * filters), i / plane_out / (groups * filters));
                let place = [i % plane_out / output[1], i % output[1]];
                *want = bias[o] as f64;
                for tap in 0..conv.taps() {
                    let tap_at = [tap / kernel[1], tap % kernel[1]];
                    let at = [0, 1].map(|a| (place[a] * stride[a] + tap_at[a] * dilation[a]).checked_sub(before[a]));
                    if let [Some(r), Some(c)] = at
                        && r < input[0]
                        && c < input[1]
                    {
                        let at = (b * groups + o / filters) * plane_in + r * input[1] + c;
                        let w = w[o * conv.taps() + tap] as f64;
                        *want += x[at] as f64 * w;
                        want_x[at] += given[i] as f64 * w;
                    }
                }
            }
            for level in levels() {
                let mut first: Option<Vec<f32>> = None;
                for pool in &pools {
                    let threads = pool.threads();
                    let mut scratch = vec![f32::NAN; threads * scratch(&conv)];
                    let mut y = vec![f32::NAN; want.len()];
                    forward_at(level, pool, &conv, &x, &w, Some(&bias), &mut y, &mut scratch, threads);
                    for (y, want) in y.iter().zip(&want) {
                        assert!((*y as f64 - want).abs() < 1e-4, "{level:?} {conv:?}: {y} is not {want}");
                    }
                    assert!(first.get_or_insert(y.clone()) == &y, "threads matter");
                    if reverses(&conv) {
                        let mut scratch = vec![f32::NAN; threads * back_scratch(&conv)];
                        let mut x = vec![f32::NAN; x.len()];
                        let bias = Some(&bias[..groups]);
                        input_grad_at(level, pool, &conv, &given, &w, bias, &mut x, &mut scratch, threads);
                        for (x, want) in x.iter().zip(&want_x) {
                            assert!((*x as f64 - want).abs() < 1e-4, "{level:?} {conv:?}: {x} is not {want}");
                        }
                    }
                }
            }
        }
    }
}
