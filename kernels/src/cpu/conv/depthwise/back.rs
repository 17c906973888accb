//! The gradient by the input. At the inputs of one remainder of the stride it is a convolution of the
//! gradient by the result with the taps of that remainder, reversed: every input sees each tap that
//! sees it, at neighbouring results. A stride of 1 has one remainder.

use super::super::Conv;
use super::{LANES, Taps, add};
use crate::cpu::parts::Parts;
use crate::cpu::simd::Level;
use crate::pool::Pool;

/// Whether [`input_grad`] computes a convolution: the taps of a remainder are evenly apart.
pub(in super::super) fn takes(conv: &Conv) -> bool {
    (0..2).all(|a| conv.stride[a] == 1 || conv.dilation[a] == 1)
}

/// The gradient by the result between zeros, and one remainder's sums.
struct Room {
    /// Zeros before a row.
    behind: usize,
    /// Values of a row with its zeros.
    row: usize,
    /// Sums of a row's remainder, in whole vectors.
    wide: usize,
}

impl Room {
    fn of(conv: &Conv) -> Room {
        let behind = (conv.kernel[1].max(1) - 1) / conv.stride[1] * conv.dilation[1];
        let places = (conv.input[1] + conv.before[1]).div_ceil(conv.stride[1]);
        let row = behind + places.max(conv.output[1]) + LANES;
        Room { behind, row, wide: places.next_multiple_of(LANES) }
    }
}

/// Scratch values of [`input_grad`] for a thread.
pub(in super::super) fn scratch(conv: &Conv) -> usize {
    let room = Room::of(conv);
    conv.taps() + room.wide + room.row * conv.output[0]
}

/// The gradient by the input, plus `bias`, of a convolution that this [`takes`].
pub(in super::super) fn input_grad(
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
    let (room, each) = (Room::of(conv), self::scratch(conv));
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    super::super::in_slots(pool, threads, conv.batch * conv.groups, |slot, image| {
        // SAFETY: slots have distinct scratch, images distinct results.
        let (scratch, x) = unsafe { (scratch.get(slot * each, each), x.get(image * plane_in, plane_in)) };
        let (turned, rest) = scratch.split_at_mut(taps);
        let (sums, plane) = rest.split_at_mut(room.wide);
        x.fill(bias.map_or(0.0, |bias| bias[image % conv.groups]));
        for f in 0..conv.filters {
            let w = &w[(image % conv.groups * conv.filters + f) * taps..][..taps];
            turned.iter_mut().zip(w.iter().rev()).for_each(|(t, w)| *t = *w);
            let y = &y[(image * conv.filters + f) * plane_out..][..plane_out];
            for (y, row) in y.chunks_exact(conv.output[1]).zip(plane.chunks_exact_mut(room.row)) {
                row[..room.behind].fill(0.0);
                row[room.behind..room.behind + y.len()].copy_from_slice(y);
                row[room.behind + y.len()..].fill(0.0);
            }
            for (row, x) in x.chunks_exact_mut(conv.input[1]).enumerate() {
                one_row(level, conv, &room, row, plane, turned, x, sums);
            }
        }
    });
}

/// Adds all taps to one row of inputs, remainder by remainder.
fn one_row(
    level: Level,
    conv: &Conv,
    room: &Room,
    row: usize,
    plane: &[f32],
    turned: &[f32],
    x: &mut [f32],
    sums: &mut [f32],
) {
    let ([sy, s], [dy, d], [height, width]) = (conv.stride, conv.dilation, conv.kernel);
    // Tap `tap + j sy` sees the row of results `last - j dy`, for `j` of which these rows exist.
    let (last, tap) = ((row + conv.before[0]) / sy, (row + conv.before[0]) % sy);
    let from = (last + 1).saturating_sub(conv.output[0]).div_ceil(dy);
    let end = height.saturating_sub(tap).div_ceil(sy).min(last / dy + 1);
    if from >= end {
        return;
    }
    let w = &turned[(height - 1 - tap - (end - 1) * sy) * width..];
    let plane = &plane[(last - (end - 1) * dy) * room.row..];
    for p in 0..s.min(width) {
        // Input `i` is at place `k = (i + before - p) / s`, and tap `p + j s` sees result `k - j d`.
        let count = (width - p).div_ceil(s);
        let first = conv.before[1].saturating_sub(p).div_ceil(s);
        let places = (x.len() + conv.before[1]).saturating_sub(p).div_ceil(s).saturating_sub(first);
        if places == 0 {
            continue;
        }
        let sums = &mut sums[..places.next_multiple_of(LANES)];
        let w = &w[width - 1 - p - (count - 1) * s..];
        let given = &plane[room.behind + first - (count - 1) * d..];
        let taps = Taps { w, step: s, apart: d, count, rows: end - from, next_row: sy * width };
        let reach = (taps.rows - 1) * dy * room.row + (count - 1) * d + sums.len();
        let weights = (taps.rows - 1) * taps.next_row + (count - 1) * s;
        assert!(reach <= given.len() && weights < w.len(), "results are cut off");
        let to = &mut x[first * s + p - conv.before[1]..];
        let run = |sums: &mut [f32]| {
            // SAFETY: the level is the processor's; what is read and written was checked.
            unsafe { add(level, given.as_ptr(), dy * room.row, taps, sums) };
        };
        if s == 1 {
            sums[..places].copy_from_slice(&to[..places]);
            sums[places..].fill(0.0);
            run(sums);
            to[..places].copy_from_slice(&sums[..places]);
        } else {
            sums.fill(0.0);
            run(sums);
            to.iter_mut().step_by(s).zip(&*sums).for_each(|(x, sum)| *x += sum);
        }
    }
}
