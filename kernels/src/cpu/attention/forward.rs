//! Attention forward with a running maximum (Milakov and Gimelshein 2018).

use super::{COLS, Operand, ROWS, Settings, Sizes, pack, padded, products, transpose};
use crate::cpu::math::exp;
use crate::cpu::reduce::{largest, sum};
use crate::cpu::share::{Shared, with_scratch};
use crate::cpu::tile::{Block, add_product};
use crate::pool::Pool;

/// Scratch values for each thread.
pub fn forward_scratch(n: &Sizes) -> usize {
    // Transposed keys, values, a block of queries; scores, slopes, results, two numbers per query.
    n.d * padded(n.s) + n.e * n.s + ROWS * n.d + 2 * ROWS * COLS + ROWS * n.e + 2 * ROWS
}

/// `out [b t g r e]` and `lse [b g r t]` of attention. `scratch` holds [`forward_scratch`] values for
/// each thread that may work.
///
/// # Panics
/// When a slice is too short for the sizes.
pub fn forward(
    pool: &Pool,
    settings: &Settings,
    [q, k, v]: [Operand; 3],
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    let n = settings.sizes;
    let heads = n.g * n.r;
    assert!(out.len() == n.b * n.t * heads * n.e && lse.len() == n.b * heads * n.t, "results have their sizes");
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    with_scratch(pool, n.b * heads, scratch, forward_scratch(&n), &|task, scratch| {
        let (b, h) = (task / heads, task % heads);
        // SAFETY: each head of each example is one task.
        let lse = unsafe { lse.part(task * n.t, n.t) };
        let row = |i: usize| {
            // SAFETY: as above; rows of a head are borrowed one at a time.
            unsafe { out.part(((b * n.t + i) * heads + h) * n.e, n.e) }
        };
        head(settings, (b, h), [q, k, v], &row, lse, scratch);
    });
}

fn head<'o>(
    settings: &Settings,
    (b, h): (usize, usize),
    [q, k, v]: [Operand; 3],
    out: &dyn Fn(usize) -> &'o mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    let n = &settings.sizes;
    let (kt, rest) = scratch.split_at_mut(n.d * padded(n.s));
    let (values, rest) = rest.split_at_mut(n.e * n.s);
    let (queries, rest) = rest.split_at_mut(ROWS * n.d);
    let (scores, rest) = rest.split_at_mut(ROWS * COLS);
    let (slopes, rest) = rest.split_at_mut(ROWS * COLS);
    let (acc, rest) = rest.split_at_mut(ROWS * n.e);
    let (max, total) = rest.split_at_mut(ROWS);
    let (q_head, k_head, v_head) = (q.head(b, h), k.head(b, h / n.r), v.head(b, h / n.r));
    transpose(k_head, k.strides.t, n.s, n.d, kt);
    pack(v_head, v.strides.t, n.s, n.e, values);
    for i0 in (0..n.t).step_by(ROWS) {
        let rows = ROWS.min(n.t - i0);
        pack(q_head.get(i0 * q.strides.t..).unwrap_or(&[]), q.strides.t, rows, n.d, queries);
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let span = settings.span(b, i0..i0 + rows);
        // Blocks start at multiples of their size: dropout draws four numbers at once.
        let mut j0 = span.start / COLS * COLS;
        while j0 < span.end {
            let cols = COLS.min(span.end - j0);
            products(queries, rows, &kt[j0 * n.d..], cols, n.d, scores);
            settings.finish((b, h), (i0, rows), (j0, cols), scores, slopes);
            for r in 0..rows {
                let weights = &mut scores[r * COLS..r * COLS + cols];
                let acc = &mut acc[r * n.e..(r + 1) * n.e];
                absorb(weights, acc, &mut max[r], &mut total[r]);
                settings.drop(b * n.g * n.r + h, i0 + r, j0, weights);
            }
            let weights = Block { data: scores, row: COLS, col: 1 };
            add_product((rows, n.e, cols), weights, &values[j0 * n.e..], n.e, acc, n.e);
            j0 += COLS;
        }
        for r in 0..rows {
            // A query that sees nothing has no weights.
            let inverse = if total[r] == 0.0 { 0.0 } else { 1.0 / total[r] };
            let acc = &acc[r * n.e..(r + 1) * n.e];
            out(i0 + r).iter_mut().zip(acc).for_each(|(o, a)| *o = a * inverse);
            lse[i0 + r] = max[r] + total[r].ln();
        }
    }
}

/// Turns a row of scores into weights relative to the new maximum, and what was summed before too.
#[inline(always)]
fn absorb_body(scores: &mut [f32], acc: &mut [f32], max: &mut f32, total: &mut f32) {
    let here = largest(scores);
    let new = if here > *max || here.is_nan() { here } else { *max };
    if new == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    if new > *max {
        let shrink = exp(*max - new);
        *total *= shrink;
        acc.iter_mut().for_each(|a| *a *= shrink);
        *max = new;
    }
    scores.iter_mut().for_each(|z| *z = exp(*z - new));
    *total += sum(scores);
}
crate::dispatch! {
    fn absorb(scores: &mut [f32], acc: &mut [f32], max: &mut f32, total: &mut f32) = absorb_body;
}
