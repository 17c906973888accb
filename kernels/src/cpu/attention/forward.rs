//! Attention forward with a running maximum (Milakov and Gimelshein 2018).
//!
//! A task is some blocks of rows of one key-value head. It packs the keys and values that its rows
//! see; then each tile of rows makes its scores for up to [`COLS`] keys, turns them into weights
//! while they are in the nearest cache, and adds the weighted values to its sums.

use super::product::{Left, Right, product};
use super::{Operand, ROWS, Settings, Sizes, TILE, WIDE, decode, padded};
use crate::cpu::pack::{AHEAD, panels, prefetch, rows, scaled};
use crate::cpu::share::{Shared, with_scratch};
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::{Shape, Vector, at_level};
use crate::pool::Pool;
use std::ops::Range;

/// Keys per block.
pub(super) const COLS: usize = 256;
/// Distance between rows of scores: not a power of two, where addresses collide.
pub(super) const ROW: usize = COLS + 16;

/// Scratch values for so many threads.
pub fn forward_scratch(n: &Sizes, threads: usize) -> usize {
    if decode::fits(n) { decode::scratch(n, threads) } else { threads.min((n.b * n.g * blocks(n)).max(1)) * each(n) }
}

/// Scratch values of a task: keys, values, queries, scores, slopes, sums, two numbers per row.
fn each(n: &Sizes) -> usize {
    let keys = n.s.next_multiple_of(WIDE) + WIDE;
    keys * (n.d + padded(n.e)) + ROWS * n.d + 2 * TILE * ROW + ROWS * padded(n.e) + 2 * ROWS
}

/// Blocks of rows of a key-value head.
fn blocks(n: &Sizes) -> usize {
    (n.t * n.r).div_ceil(ROWS)
}

/// `out [b t g r e]` and `lse [b g r t]` of attention. `scratch` holds [`forward_scratch`] values for
/// the threads that may work.
///
/// # Panics
/// When a slice is too short for the sizes.
pub fn forward(
    pool: &Pool,
    settings: &Settings,
    operands: [Operand; 3],
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    forward_at(level(), pool, settings, operands, out, lse, scratch);
}

pub(super) fn forward_at(
    level: Level,
    pool: &Pool,
    settings: &Settings,
    operands: [Operand; 3],
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    let n = settings.sizes;
    let heads = n.g * n.r;
    assert!(out.len() == n.b * n.t * heads * n.e && lse.len() == n.b * heads * n.t, "results have their sizes");
    if decode::fits(&n) {
        return decode::forward(level, pool, settings, operands, out, lse, scratch);
    }
    let blocks = blocks(&n);
    // Enough tasks for every thread, but each packs its keys: two blocks pay for that.
    let per_head = (4 * pool.threads()).div_ceil((n.b * n.g).max(1)).min(blocks.div_ceil(2)).max(1);
    let per_task = blocks.div_ceil(per_head).max(1);
    let per_head = blocks.div_ceil(per_task);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    with_scratch(pool, n.b * n.g * per_head, scratch, each(&n), &|task, scratch| {
        let (head, part) = (task / per_head, task % per_head);
        // Later queries see more keys if attention is causal: the longest tasks come first.
        let first = (per_head - 1 - part) * per_task * ROWS;
        let rows = first..(first + per_task * ROWS).min(n.t * n.r);
        // SAFETY: every row belongs to one task.
        unsafe { some_rows(level, settings, (head / n.g, head % n.g), rows, operands, &out, &lse, scratch) };
    });
}

/// # Safety
/// Nobody else touches the results of these rows.
unsafe fn some_rows(
    level: Level,
    settings: &Settings,
    (b, g): (usize, usize),
    all: Range<usize>,
    [q, k, v]: [Operand; 3],
    out: &Shared<f32>,
    lse: &Shared<f32>,
    scratch: &mut [f32],
) {
    let n = &settings.sizes;
    let Shape { lanes, rows: tile } = Shape::of(level);
    let (wide, e, heads) = (2 * lanes, padded(n.e), n.g * n.r);
    let seen = settings.span_of_rows(b, all.clone());
    // Keys are packed from a whole panel on.
    let first = seen.start / wide * wide;
    let keys = seen.end.max(first) - first;
    let (kt, rest) = scratch.split_at_mut((n.s.next_multiple_of(WIDE) + WIDE) * n.d);
    let (values, rest) = rest.split_at_mut((n.s.next_multiple_of(WIDE) + WIDE) * e);
    let (queries, rest) = rest.split_at_mut(ROWS * n.d);
    let (scores, rest) = rest.split_at_mut(TILE * ROW);
    let (slopes, rest) = rest.split_at_mut(TILE * ROW);
    let (sums, rest) = rest.split_at_mut(ROWS * e);
    let (max, rest) = rest.split_at_mut(ROWS);
    let total = &mut rest[..ROWS];
    panels(k.head(b, g), |j| (first + j) * k.strides.t, (keys, n.d), wide, 1.0, kt);
    rows(v.head(b, g), |j| (first + j) * v.strides.t, (keys, n.e), e, 1.0, values);
    for start in all.clone().step_by(ROWS) {
        let count = ROWS.min(all.end - start);
        let at = |row: usize| (start + row) / n.r * q.strides.t + (start + row) % n.r * q.strides.h;
        panels(q.head(b, g * n.r), at, (count, n.d), tile, settings.scale, queries);
        sums.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let seen = settings.span_of_rows(b, start..start + count);
        let mut j0 = seen.start / COLS * COLS;
        while j0 < seen.end {
            for i in (0..count).step_by(tile) {
                let m = tile.min(count - i);
                let seen = settings.span_of_rows(b, start + i..start + i + m);
                let seen = seen.start.max(j0)..seen.end.min(j0 + COLS);
                if seen.is_empty() {
                    continue;
                }
                // Whole panels in front, whole vectors behind.
                let from = seen.start / wide * wide;
                let cols = (seen.end - from).next_multiple_of(lanes);
                let queries = Left::<1> { data: &queries[i * n.d..], next: tile * n.d, col: tile };
                let keys = Right { data: &kt[(from - first) * n.d..], next: wide * n.d, row: wide };
                product(level, (m, cols, n.d), queries, keys, scores, ROW, false);
                for row in 0..m {
                    let (query, head) = ((start + i + row) / n.r, g * n.r + (start + i + row) % n.r);
                    let z = &mut scores[row * ROW..][..cols];
                    settings.finish((b, head, query), from, z, &mut slopes[..cols]);
                }
                let part = &mut sums[i * e..];
                // SAFETY: the level is the processor's.
                unsafe { absorb(level, (m, cols), scores, (part, e), &mut max[i..i + m], &mut total[i..i + m]) };
                for row in 0..m {
                    let (query, head) = ((start + i + row) / n.r, g * n.r + (start + i + row) % n.r);
                    settings.drop(b * heads + head, query, from, &mut scores[row * ROW..][..cols]);
                }
                let skip = seen.start - from;
                let weights = Left::<ROW> { data: &scores[skip..], next: tile * ROW, col: 1 };
                let values = Right { data: &values[(seen.start - first) * e..], next: wide, row: e };
                product(level, (m, e, seen.len()), weights, values, part, e, true);
            }
            j0 += COLS;
        }
        let place = |row: usize| ((start + row) / n.r, g * n.r + (start + row) % n.r);
        for row in 0..count {
            let (i, h) = place(row);
            // A query that sees nothing has no weights.
            let inverse = if total[row] == 0.0 { 0.0 } else { 1.0 / total[row] };
            // SAFETY: by the caller's promise.
            let (out, lse) = unsafe {
                let (later, head) = place((row + AHEAD).min(count - 1));
                prefetch(out.part(((b * n.t + later) * heads + head) * n.e, n.e), n.e);
                (out.part(((b * n.t + i) * heads + h) * n.e, n.e), lse.part((b * heads + h) * n.t + i, 1))
            };
            scaled(&sums[row * e..][..n.e], inverse, out);
            lse[0] = max[row] + total[row].ln();
        }
    }
}

/// Turns rows of scores into weights relative to the new maximum, and what was summed before too.
///
/// # Safety
/// The vector's instructions exist.
#[inline(always)]
unsafe fn absorb_body<V: Vector>(
    (m, cols): (usize, usize),
    scores: &mut [f32],
    (sums, e): (&mut [f32], usize),
    max: &mut [f32],
    total: &mut [f32],
) {
    for row in 0..m {
        let z = &mut scores[row * ROW..][..cols];
        let vectors = cols / V::LANES;
        let at = z.as_mut_ptr();
        // SAFETY: all vectors lie in `z`.
        unsafe {
            let mut most = V::splat(f32::NEG_INFINITY);
            for i in 0..vectors {
                // Takes the number where the score is none; that shows in the sum.
                most = V::load(at.add(i * V::LANES)).max(most);
            }
            let new = most.largest().max(max[row]);
            if new == f32::NEG_INFINITY {
                // Nothing is seen, or what is seen is not a number.
                let sick = z.iter().any(|z| z.is_nan());
                z.fill(if sick { f32::NAN } else { 0.0 });
                total[row] += if sick { f32::NAN } else { 0.0 };
                continue;
            }
            if new > max[row] && max[row] > f32::NEG_INFINITY {
                let shrink = V::splat(max[row] - new).exp();
                total[row] *= shrink.largest();
                let sums = &mut sums[row * e..][..e];
                for i in (0..e).step_by(V::LANES) {
                    let p = sums.as_mut_ptr().add(i);
                    V::load(p).mul(shrink).store(p);
                }
            }
            max[row] = new;
            let (new, mut sum) = (V::splat(new), V::splat(0.0));
            for i in 0..vectors {
                let p = at.add(i * V::LANES);
                let w = V::load(p).sub(new).exp();
                w.store(p);
                sum = sum.add(w);
            }
            total[row] += sum.sum();
        }
    }
}
at_level! {
    pub(super) unsafe fn absorb(size: (usize, usize), scores: &mut [f32], sums: (&mut [f32], usize), max: &mut [f32], total: &mut [f32]) = absorb_body;
}
