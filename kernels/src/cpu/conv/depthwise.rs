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

/// `y = conv(x, w) + bias`. `weight(o, tap)` is that of output channel `o`.
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
                for (ky, w) in w.chunks_exact(conv.kernel[1]).enumerate() {
                    let at = oy * conv.stride[0] + ky * conv.dilation[0];
                    if at >= conv.before[0] && at - conv.before[0] < conv.input[0] {
                        let row = &plane[(at - conv.before[0]) * padded.row(conv)..][..padded.row(conv)];
                        one_row(level, conv, &padded, row, w, sums);
                    }
                }
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    });
}

/// Adds one row of taps over one row of inputs.
fn one_row(level: Level, conv: &Conv, padded: &Padded, row: &[f32], w: &[f32], sums: &mut [f32]) {
    let (s, d) = (conv.stride[1], conv.dilation[1]);
    let mut some = |phase: usize, from: usize, first: usize, step: usize, d: usize| {
        let x = &row[phase * padded.phase..][..padded.phase];
        let taps = (w.len() - first).div_ceil(step);
        let reach = from + (taps - 1) * d + padded.wide;
        assert!(reach <= x.len() && padded.wide <= sums.len(), "inputs are cut off");
        // SAFETY: the level is the processor's; what is read and written was checked.
        unsafe { add(level, x[from..].as_ptr(), (&w[first..], step, taps), d, &mut sums[..padded.wide]) };
    };
    match (s, d) {
        (1, _) => some(0, 0, 0, 1, d),
        // Taps whose inputs have the same remainder are neighbours there.
        (_, 1) => (0..s.min(w.len())).for_each(|p| some(p, 0, p, s, 1)),
        _ => (0..w.len()).for_each(|t| some(t * d % s, t * d / s, t, w.len(), 1)),
    }
}

/// `y[o] += sum over t of w[t * step] x[o + t * d]` for `taps` taps and whole vectors of outputs.
///
/// # Safety
/// The vector's instructions exist, and inputs lie at `x`.
#[inline(always)]
unsafe fn add_body<V: Vector>(x: *const f32, (w, step, taps): (&[f32], usize, usize), d: usize, y: &mut [f32]) {
    let vectors = y.len() / V::LANES;
    // Taps so far apart see inputs a vector apart.
    let period = if V::LANES.is_multiple_of(d) { V::LANES / d } else { taps };
    let y = y.as_mut_ptr();
    let mut v = 0;
    // SAFETY: vectors of outputs lie in `y`; weights in `w`, inputs at `x` by the caller's promise.
    unsafe {
        while v < vectors {
            let (x, y) = (x.add(v * V::LANES), y.add(v * V::LANES));
            v += match vectors - v {
                16.. if V::ROWS == 12 => block::<V, 16>(x, (w, step, taps), d, period, y),
                8.. => block::<V, 8>(x, (w, step, taps), d, period, y),
                4.. => block::<V, 4>(x, (w, step, taps), d, period, y),
                2.. => block::<V, 2>(x, (w, step, taps), d, period, y),
                _ => block::<V, 1>(x, (w, step, taps), d, period, y),
            };
        }
    }
}
at_level! {
    unsafe fn add(x: *const f32, w: (&[f32], usize, usize), d: usize, y: &mut [f32]) = add_body;
}

/// All taps for `N` vectors of outputs; says how many vectors.
///
/// # Safety
/// As for [`add_body`].
#[inline(always)]
unsafe fn block<V: Vector, const N: usize>(
    x: *const f32,
    (w, step, taps): (&[f32], usize, usize),
    d: usize,
    period: usize,
    y: *mut f32,
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut acc = [V::splat(0.0); N];
        for n in 0..N {
            acc[n] = V::load(y.add(n * V::LANES));
        }
        let w = w.as_ptr();
        for i in 0..period.min(taps) {
            let mut t = i;
            while t < taps {
                let (x, w, next) = (x.add(t * d), w.add(t * step), period * step);
                t += period
                    * match (taps - t).div_ceil(period) {
                        1 => turn::<V, N, 1>(x, w, next, &mut acc),
                        2 => turn::<V, N, 2>(x, w, next, &mut acc),
                        3 => turn::<V, N, 3>(x, w, next, &mut acc),
                        _ => turn::<V, N, 4>(x, w, next, &mut acc),
                    };
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
        for q in 0..N + J - 1 {
            let x = V::load(x.add(q * V::LANES));
            for j in 0..J {
                if q >= j && q - j < N {
                    acc[q - j] = taps[j].fma(x, acc[q - j]);
                }
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
            let mut want = vec![0f64; batch * groups * filters * plane_out];
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
                        let x = x[(b * groups + o / filters) * plane_in + r * input[1] + c];
                        *want += x as f64 * w[o * conv.taps() + tap] as f64;
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
                }
            }
        }
    }
}
