//! Attention backward: weights are computed again from `lse`, block by block.
//!
//! A task is one key-value head, or a range of its keys where heads are few: it keeps the gradients
//! by its keys and values, runs through the rows of queries, and makes for each block of rows and
//! keys the weights P and the gradients of scores D in cache. Three products follow: P and D,
//! transposed, by the gradients of the result and by the queries; D by the keys. Gradients by
//! queries of several ranges are added in the order of keys. Ranges depend on sizes alone.

use super::product::{Left, Right, product};
use super::{LANES, Mask, Operand, ROWS, Settings, Sizes, Strides, TILE, padded};
use crate::cpu::pack::{AHEAD, panels, prefetch, rows, scaled};
use crate::cpu::share::{Shared, with_scratch};
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::{Shape, Vector, at_level};
use crate::pool::Pool;
use std::ops::Range;

/// Keys per block: whole tiles, whole panels, whole vectors.
const COLS: usize = 96;
/// Distance between rows of weights: a tile may reach beyond the block, and powers of two collide.
const ROW: usize = COLS + 16;
/// Heads that are enough tasks for the threads of a processor.
const HEADS: usize = 8;

/// Ranges of keys that are tasks of their own, and the keys of each.
fn ranges(n: &Sizes) -> (usize, usize) {
    let wanted = HEADS.div_ceil((n.b * n.g).max(1));
    // Packing queries pays for some blocks of keys.
    let parts = wanted.min(n.s / (2 * COLS)).max(1);
    let keys = n.s.div_ceil(parts).next_multiple_of(COLS);
    (n.s.div_ceil(keys.max(1)), keys)
}

/// Scratch values for so many threads.
pub fn backward_scratch(n: &Sizes, threads: usize) -> usize {
    let parts = ranges(n).0;
    let sums = if parts > 1 { parts * n.b * n.t * n.g * n.r * n.d } else { 0 };
    sums + threads.min((n.b * n.g * parts).max(1)) * each(n)
}

/// Scratch values of a task.
fn each(n: &Sizes) -> usize {
    let (keys, d, e) = (ranges(n).1, padded(n.d), padded(n.e));
    // Keys and values in panels, keys in rows, gradients of both; queries and given gradients in
    // panels and rows, gradients of queries; weights, gradients of scores, slopes; a number a row.
    keys * (n.d + n.e + d + d + e) + ROWS * (n.d + n.e + 2 * d + e) + 3 * (ROWS + TILE) * ROW + ROWS
}

/// What is known of the forward pass, and where gradients go.
pub struct Gradients<'a> {
    /// The result `[b t g r e]`.
    pub out: &'a [f32],
    /// `[b g r t]`.
    pub lse: &'a [f32],
    /// The gradient by the result.
    pub g: Operand<'a>,
    /// The gradient by `lse`, where it was used.
    pub g_lse: Option<&'a [f32]>,
    /// Gets the gradient by `q [b t g r d]`.
    pub dq: &'a mut [f32],
    /// Gets the gradient by `k [b s g d]`.
    pub dk: &'a mut [f32],
    /// Gets the gradient by `v [b s g e]`.
    pub dv: &'a mut [f32],
    /// Gets the gradient by the additive mask, where it is asked for.
    pub dmask: Option<&'a mut [f32]>,
}

/// The gradients of attention. `scratch` holds [`backward_scratch`] values for the threads that may
/// work.
///
/// # Panics
/// When a slice is too short for the sizes.
pub fn backward(pool: &Pool, settings: &Settings, operands: [Operand; 3], to: Gradients, scratch: &mut [f32]) {
    backward_at(level(), pool, settings, operands, to, scratch);
}

pub(super) fn backward_at(
    level: Level,
    pool: &Pool,
    settings: &Settings,
    [q, k, v]: [Operand; 3],
    to: Gradients,
    scratch: &mut [f32],
) {
    let n = settings.sizes;
    let heads = n.g * n.r;
    assert!(to.dq.len() == n.b * n.t * heads * n.d, "the gradient by q has its size");
    assert!(to.dk.len() == n.b * n.s * n.g * n.d, "the gradient by k has its size");
    assert!(to.dv.len() == n.b * n.s * n.g * n.e, "the gradient by v has its size");
    if n.s == 0 || n.t == 0 {
        to.dq.fill(0.0);
        to.dk.fill(0.0);
        to.dv.fill(0.0);
        if let Some(m) = to.dmask {
            m.fill(0.0);
        }
        return;
    }
    // Examples, heads and queries may share the gradient by the mask: then they are one task.
    let (mut whole_batch, mut all_heads, mut all_keys) = (false, false, false);
    let dmask = to.dmask.map(|m| {
        m.fill(0.0);
        if let Mask::Real(_, s) = settings.mask {
            whole_batch = s[0] == 0;
            all_heads = s[1] == 0;
            all_keys = s[3] == 0;
        }
        Shared::new(m)
    });
    let (parts, keys) = ranges(&n);
    let (sums, scratch) = scratch.split_at_mut(if parts > 1 { parts * to.dq.len() } else { 0 });
    let size = to.dq.len();
    {
        let dq = Shared::new(if parts > 1 { &mut *sums } else { &mut *to.dq });
        let (dk, dv) = (Shared::new(to.dk), Shared::new(to.dv));
        let count = |together: bool, n: usize| if together { 1 } else { n };
        let [bs, gs, ps] = [(whole_batch, n.b), (all_heads, n.g), (all_keys, parts)].map(|(t, n)| count(t, n));
        with_scratch(pool, bs * gs * ps, scratch, each(&n), &|task, scratch| {
            let some = |together: bool, i: usize, n: usize| if together { 0..n } else { i..i + 1 };
            for b in some(whole_batch, task / (gs * ps), n.b) {
                for g in some(all_heads, task / ps % gs, n.g) {
                    for part in some(all_keys, task % ps, parts) {
                        let range = part * keys..((part + 1) * keys).min(n.s);
                        let known = Known { out: to.out, lse: to.lse, g: to.g, g_lse: to.g_lse };
                        let head = Head { level, settings, at: (b, g), range, q, k, v, known };
                        // SAFETY: a task has its keys of its heads alone, and queries of a head and
                        // a range belong to one of them; it has the parts of the mask that its
                        // heads, examples and keys share.
                        unsafe { head.run(&dq, part * size, &dk, &dv, dmask.as_ref(), scratch) };
                    }
                }
            }
        });
    }
    if parts > 1 {
        pool.rows(to.dq, 1, 1 << 14, |first, dq| {
            dq.copy_from_slice(&sums[first..first + dq.len()]);
            for part in 1..parts {
                add(dq, &sums[part * size + first..]);
            }
        });
    }
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
crate::dispatch! {
    fn add(x: &mut [f32], y: &[f32]) = add_body;
}

/// What the forward pass left, and the gradients by its results.
#[derive(Clone, Copy)]
struct Known<'a> {
    out: &'a [f32],
    lse: &'a [f32],
    g: Operand<'a>,
    g_lse: Option<&'a [f32]>,
}

/// A range of keys of one key-value head of one example.
struct Head<'a> {
    level: Level,
    settings: &'a Settings<'a>,
    at: (usize, usize),
    range: Range<usize>,
    q: Operand<'a>,
    k: Operand<'a>,
    v: Operand<'a>,
    known: Known<'a>,
}

/// A block of rows, packed.
struct Block<'a> {
    /// Rows of the head's queries.
    start: usize,
    count: usize,
    queries: &'a [f32],
    query_rows: &'a [f32],
    given: &'a [f32],
    given_rows: &'a [f32],
    delta: &'a [f32],
}

/// Weights, gradients of scores and slopes of the soft cap, [`ROW`] apart.
struct Scores<'a> {
    p: &'a mut [f32],
    d: &'a mut [f32],
    slopes: &'a mut [f32],
}

impl Head<'_> {
    /// # Safety
    /// Nobody else touches the gradients by these keys and values, the gradient by the queries that
    /// starts at `dq_at`, nor the part of the mask's gradient that belongs to them.
    unsafe fn run(
        &self,
        dq: &Shared<f32>,
        dq_at: usize,
        dk: &Shared<f32>,
        dv: &Shared<f32>,
        dmask: Option<&Shared<f32>>,
        scratch: &mut [f32],
    ) {
        let n = &self.settings.sizes;
        let ((b, g), heads, level, range) = (self.at, n.g * n.r, self.level, self.range.clone());
        let Shape { lanes, rows: tile } = Shape::of(level);
        let (wide, d, e) = (2 * lanes, padded(n.d), padded(n.e));
        let room = ranges(n).1;
        let (kt, rest) = scratch.split_at_mut(room * n.d);
        let (vt, rest) = rest.split_at_mut(room * n.e);
        let (keys, rest) = rest.split_at_mut(room * d);
        let (dk_sums, rest) = rest.split_at_mut(room * d);
        let (dv_sums, rest) = rest.split_at_mut(room * e);
        let (queries, rest) = rest.split_at_mut(ROWS * n.d);
        let (query_rows, rest) = rest.split_at_mut(ROWS * d);
        let (given, rest) = rest.split_at_mut(ROWS * n.e);
        let (given_rows, rest) = rest.split_at_mut(ROWS * e);
        let (dq_sums, rest) = rest.split_at_mut(ROWS * d);
        let (p, rest) = rest.split_at_mut((ROWS + TILE) * ROW);
        let (slopes, rest) = rest.split_at_mut((ROWS + TILE) * ROW);
        let (ds, rest) = rest.split_at_mut((ROWS + TILE) * ROW);
        let delta = &mut rest[..ROWS];
        let (k_head, v_head) = (self.k.head(b, g), self.v.head(b, g));
        let k_at = |j: usize| (range.start + j) * self.k.strides.t;
        panels(k_head, k_at, (range.len(), n.d), wide, 1.0, kt);
        panels(v_head, |j| (range.start + j) * self.v.strides.t, (range.len(), n.e), wide, 1.0, vt);
        rows(k_head, k_at, (range.len(), n.d), d, 1.0, keys);
        dk_sums.fill(0.0);
        dv_sums.fill(0.0);
        for start in (0..n.t * n.r).step_by(ROWS) {
            let count = ROWS.min(n.t * n.r - start);
            let place = |row: usize| ((start + row) / n.r, g * n.r + (start + row) % n.r);
            let at = |x: &Operand, row: usize| (start + row) / n.r * x.strides.t + (start + row) % n.r * x.strides.h;
            dq_sums.fill(0.0);
            let seen = self.settings.span_of_rows(b, start..start + count);
            let seen = seen.start.max(range.start)..seen.end.min(range.end);
            if !seen.is_empty() {
                // Scaled queries make scaled scores, and scale the gradient by keys.
                let scale = self.settings.scale;
                let (q, g_out) = (self.q.head(b, g * n.r), self.known.g.head(b, g * n.r));
                panels(q, |i| at(&self.q, i), (count, n.d), tile, scale, queries);
                rows(q, |i| at(&self.q, i), (count, n.d), d, scale, query_rows);
                panels(g_out, |i| at(&self.known.g, i), (count, n.e), tile, 1.0, given);
                rows(g_out, |i| at(&self.known.g, i), (count, n.e), e, 1.0, given_rows);
                let out_at = Strides::packed(n.t, heads, n.e);
                for (row, delta) in delta[..count].iter_mut().enumerate() {
                    let (i, h) = place(row);
                    if row + AHEAD < count {
                        let (i, h) = place(row + AHEAD);
                        prefetch(&self.known.out[b * out_at.b + i * out_at.t + h * out_at.h..], n.e);
                    }
                    let out = &self.known.out[b * out_at.b + i * out_at.t + h * out_at.h..][..n.e];
                    let by_lse = self.known.g_lse.map_or(0.0, |g| g[(b * heads + h) * n.t + i]);
                    *delta = dot(&given_rows[row * e..][..n.e], out) - by_lse;
                }
            }
            let block = Block { start, count, queries, query_rows, given, given_rows, delta };
            let mut j0 = range.start + (seen.start.max(range.start) - range.start) / COLS * COLS;
            while j0 < seen.end {
                let cols = COLS.min(seen.end - j0);
                let at = j0 - range.start;
                let scores = &mut Scores { p, d: ds, slopes };
                // SAFETY: by the caller's promise.
                unsafe { self.scores(&block, (j0, cols), &kt[at * n.d..], &vt[at * n.e..], scores, dmask) };
                // By the transposed weights, then by the gradients of scores, both ways.
                for c in (0..cols).step_by(tile) {
                    let m = tile.min(cols - c);
                    let (first, end) = self.rows_that_see(&block, j0 + c..j0 + c + m);
                    let left = |x| Left::<1> { data: x, next: 0, col: ROW };
                    let (from, k) = (first * ROW + c, end - first);
                    let right = Right { data: &block.given_rows[first * e..], next: wide, row: e };
                    product(level, (m, e, k), left(&scores.p[from..]), right, &mut dv_sums[(at + c) * e..], e, true);
                    let right = Right { data: &block.query_rows[first * d..], next: wide, row: d };
                    product(level, (m, d, k), left(&scores.d[from..]), right, &mut dk_sums[(at + c) * d..], d, true);
                }
                for i in (0..count).step_by(tile) {
                    let m = tile.min(count - i);
                    let (from, end) = self.columns(&block, i..i + m, (j0, cols));
                    let left = Left::<ROW> { data: &scores.d[i * ROW + from..], next: 0, col: 1 };
                    let right = Right { data: &keys[(at + from) * d..], next: wide, row: d };
                    product(level, (m, d, end - from), left, right, &mut dq_sums[i * d..], d, true);
                }
                j0 += COLS;
            }
            for row in 0..count {
                let at = |(i, h)| dq_at + ((b * n.t + i) * heads + h) * n.d;
                // SAFETY: by the caller's promise.
                let dq = unsafe {
                    prefetch(dq.part(at(place((row + AHEAD).min(count - 1))), n.d), n.d);
                    dq.part(at(place(row)), n.d)
                };
                scaled(&dq_sums[row * d..][..n.d], self.settings.scale, dq);
            }
        }
        let row = |j: usize| (b * n.s + range.start + j) * n.g + g;
        for j in 0..range.len() {
            // SAFETY: by the caller's promise.
            let (dk, dv) = unsafe {
                let later = row((j + AHEAD).min(range.len() - 1));
                prefetch(dk.part(later * n.d, n.d), n.d);
                prefetch(dv.part(later * n.e, n.e), n.e);
                (dk.part(row(j) * n.d, n.d), dv.part(row(j) * n.e, n.e))
            };
            dk.copy_from_slice(&dk_sums[j * d..][..n.d]);
            dv.copy_from_slice(&dv_sums[j * e..][..n.e]);
        }
    }

    /// Columns of the block of keys that some of the rows see.
    fn columns(&self, block: &Block, rows: Range<usize>, (j0, cols): (usize, usize)) -> (usize, usize) {
        let seen = self.settings.span_of_rows(self.at.0, block.start + rows.start..block.start + rows.end);
        let from = seen.start.saturating_sub(j0).min(cols);
        (from, seen.end.saturating_sub(j0).clamp(from, cols))
    }

    /// The rows of the block, from the first to the last, that see some of the keys: queries that
    /// see later ones come later.
    fn rows_that_see(&self, block: &Block, keys: Range<usize>) -> (usize, usize) {
        let visible = |row: usize| self.settings.visible(self.at.0, (block.start + row) / self.settings.sizes.r);
        let first = first_row(0..block.count, |row| visible(row).end > keys.start);
        let end = first_row(first..block.count, |row| visible(row).start >= keys.end);
        (first, end)
    }

    /// The weights and the gradients of scores of a block; zeros where nothing is seen.
    ///
    /// # Safety
    /// Nobody else touches the part of the mask's gradient.
    unsafe fn scores(
        &self,
        block: &Block,
        (j0, cols): (usize, usize),
        kt: &[f32],
        vt: &[f32],
        scores: &mut Scores,
        dmask: Option<&Shared<f32>>,
    ) {
        let (n, (b, g), level) = (&self.settings.sizes, self.at, self.level);
        let Shape { lanes, rows: tile } = Shape::of(level);
        let wide = 2 * lanes;
        for i in (0..block.count).step_by(tile) {
            let m = tile.min(block.count - i);
            let (from, end) = self.columns(block, i..i + m, (j0, cols));
            let from = from / wide * wide;
            let some = if end > from { (end - from).next_multiple_of(lanes) } else { 0 };
            let (p, ds) = (&mut scores.p[i * ROW..], &mut scores.d[i * ROW..]);
            for row in 0..m {
                for x in [&mut *p, &mut *ds] {
                    x[row * ROW..][..from].fill(0.0);
                    x[row * ROW + from + some..(row + 1) * ROW].fill(0.0);
                }
            }
            if some == 0 {
                continue;
            }
            let queries = Left::<1> { data: &block.queries[i * n.d..], next: 0, col: tile };
            let right = Right { data: &kt[from * n.d..], next: wide * n.d, row: wide };
            product(level, (m, some, n.d), queries, right, &mut p[from..], ROW, false);
            let given = Left::<1> { data: &block.given[i * n.e..], next: 0, col: tile };
            let right = Right { data: &vt[from * n.e..], next: wide * n.e, row: wide };
            product(level, (m, some, n.e), given, right, &mut ds[from..], ROW, false);
            for row in 0..m {
                let whole = block.start + i + row;
                let (query, h) = (whole / n.r, g * n.r + whole % n.r);
                let (head, from_key, at) = (b * n.g * n.r + h, j0 + from, row * ROW + from);
                let (p, ds) = (&mut p[at..][..some], &mut ds[at..][..some]);
                let slopes = &mut scores.slopes[at..][..some];
                self.settings.finish((b, h, query), from_key, p, slopes);
                self.settings.drop(head, query, from_key, ds);
                let lse = self.known.lse[head * n.t + query];
                // SAFETY: the level is the processor's.
                unsafe { weigh(level, p, ds, lse, block.delta[i + row]) };
                self.settings.drop(head, query, from_key, p);
                if let (Some(dmask), Mask::Real(_, s)) = (dmask, self.settings.mask) {
                    let start = b * s[0] + h * s[1] + query * s[2] + from_key * s[3];
                    for (j, d) in ds[..some.min(end - from)].iter().enumerate() {
                        // SAFETY: by the caller's promise.
                        unsafe { dmask.part(start + j * s[3], 1)[0] += d };
                    }
                }
                if self.settings.soft_cap.is_some() {
                    ds.iter_mut().zip(slopes).for_each(|(d, s)| *d *= *s);
                }
            }
        }
    }
}

/// The first row of which something holds that holds of all later ones too.
fn first_row(rows: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (rows.start, rows.end);
    while from < to {
        let middle = from.midpoint(to);
        if holds(middle) { to = middle } else { from = middle + 1 }
    }
    from
}

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (x, y) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut rest = 0.0;
    for (a, b) in x.remainder().iter().zip(y.remainder()) {
        rest += a * b;
    }
    for (a, b) in x.zip(y) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
crate::dispatch! {
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
}

/// Scores to weights, and gradients of weights to gradients of scores.
///
/// # Safety
/// The vector's instructions exist; both slices are as long, whole vectors.
#[inline(always)]
unsafe fn weigh_body<V: Vector>(p: &mut [f32], d: &mut [f32], lse: f32, delta: f32) {
    if lse == f32::NEG_INFINITY {
        p.fill(0.0);
        d.fill(0.0);
        return;
    }
    // SAFETY: all vectors lie in the slices.
    unsafe {
        let (lse, delta) = (V::splat(lse), V::splat(delta));
        for i in (0..p.len().min(d.len())).step_by(V::LANES) {
            let (p, d) = (p.as_mut_ptr().add(i), d.as_mut_ptr().add(i));
            let w = V::load(p).sub(lse).exp();
            w.store(p);
            w.mul(V::load(d).sub(delta)).store(d);
        }
    }
}
at_level! {
    unsafe fn weigh(p: &mut [f32], d: &mut [f32], lse: f32, delta: f32) = weigh_body;
}
