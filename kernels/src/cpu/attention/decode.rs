//! A few queries over many keys, as in decoding with a cache: keys and values are read once, as
//! they lie, at the speed of memory.
//!
//! A score is a sum of products along a key, four keys and up to four rows of queries at a time;
//! queries that share a key-value head share its loads. Where heads are fewer than [`TASKS`], the
//! keys that are seen are cut into ranges, and their results are joined by the logarithms of their
//! sums. Ranges depend on what is seen, never on threads.

use super::forward::{COLS, ROW, absorb};
use super::{LANES, Operand, Settings, Sizes, padded};
use crate::cpu::pack::{AHEAD, prefetch, rows, scaled};
use crate::cpu::share::{Shared, with_scratch};
use crate::cpu::simd::Level;
use crate::cpu::vector::{Vector, at_level};
use crate::pool::Pool;

/// Rows of queries of one key-value head for which packing keys does not pay.
const FEW: usize = 8;
/// Ranges of keys that occupy a processor.
const TASKS: usize = 16;
/// Keys that are worth a range.
const LEAST: usize = 128;

/// Whether so few queries are attended with here. Sums are then in another order than of many, which
/// depends on how many sequences there are.
pub(super) fn fits(n: &Sizes) -> bool {
    !n.alike && n.t * n.r <= FEW
}

/// Ranges per key-value head of so many keys.
fn parts(n: &Sizes, keys: usize) -> usize {
    TASKS.div_ceil((n.b * n.g).max(1)).min(keys.div_ceil(LEAST)).max(1)
}

/// Values of one range's results: sums, the maximum and the total of each row.
fn result(n: &Sizes) -> usize {
    n.t * n.r * (padded(n.e) + 2)
}

/// Scratch values of a task: queries and scores.
fn each(n: &Sizes) -> usize {
    n.t * n.r * (padded(n.d) + ROW)
}

/// Scratch values for so many threads.
pub(super) fn scratch(n: &Sizes, threads: usize) -> usize {
    let tasks = n.b * n.g * parts(n, n.s);
    tasks * result(n) + threads.min(tasks.max(1)) * each(n)
}

pub(super) fn forward(
    level: Level,
    pool: &Pool,
    settings: &Settings,
    operands: [Operand; 3],
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    let n = settings.sizes;
    // Of a cache, only what is seen is read.
    let seen = (0..n.b).map(|b| settings.span(b, 0..n.t).len()).max().unwrap_or(0);
    let (most, parts, size) = (parts(&n, n.s), parts(&n, seen), result(&n));
    let (results, scratch) = scratch.split_at_mut(n.b * n.g * most * size);
    let results = Shared::new(results);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    with_scratch(pool, n.b * n.g * parts, scratch, each(&n), &|task, scratch| {
        let (head, part) = ((task / parts / n.g, task / parts % n.g), task % parts);
        // SAFETY: every task has its own result, and a head that is one task its own rows.
        unsafe {
            let result = results.part(task * size, size);
            range(level, settings, head, (part, parts), operands, result, scratch);
            if parts == 1 {
                join(settings, head, &[result], &out, &lse);
            }
        }
    });
    if parts > 1 {
        for head in 0..n.b * n.g {
            // SAFETY: all tasks have ended; heads have their own rows.
            unsafe {
                let all: [&[f32]; TASKS] =
                    std::array::from_fn(|p| &*results.part((head * parts + p.min(parts - 1)) * size, size));
                join(settings, (head / n.g, head % n.g), &all[..parts], &out, &lse);
            }
        }
    }
}

/// The result of one range of the keys that a head's queries see.
fn range(
    level: Level,
    settings: &Settings,
    (b, g): (usize, usize),
    (part, parts): (usize, usize),
    [q, k, v]: [Operand; 3],
    result: &mut [f32],
    scratch: &mut [f32],
) {
    let (n, e, count) = (&settings.sizes, padded(settings.sizes.e), settings.sizes.t * settings.sizes.r);
    let (queries, scores) = scratch.split_at_mut(count * padded(n.d));
    let (sums, rest) = result.split_at_mut(count * e);
    let (max, total) = rest.split_at_mut(count);
    sums.fill(0.0);
    max.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    let at = |row: usize| row / n.r * q.strides.t + row % n.r * q.strides.h;
    rows(q.head(b, g * n.r), at, (count, n.d), padded(n.d), settings.scale, queries);
    let seen = settings.span(b, 0..n.t);
    // Ranges start where dropout draws four numbers at once.
    let start = seen.start / LANES * LANES;
    let keys = (seen.end - start.min(seen.end)).div_ceil(parts).next_multiple_of(LANES);
    let keys = (start + part * keys).min(seen.end)..(start + (part + 1) * keys).min(seen.end);
    for j0 in keys.clone().step_by(COLS) {
        let cols = COLS.min(keys.end - j0);
        let wide = cols.next_multiple_of(LANES);
        let from = |x: &Operand| j0 * x.strides.t;
        let (k_rows, v_rows) = (&k.head(b, g)[from(&k)..], &v.head(b, g)[from(&v)..]);
        assert!((cols - 1) * k.strides.t + n.d <= k_rows.len(), "keys are cut off");
        assert!((cols - 1) * v.strides.t + n.e <= v_rows.len(), "values are cut off");
        // SAFETY: the level is the processor's; operands have so many rows, scratch memory room.
        unsafe { dots(level, (count, cols, n.d), queries, (k_rows, k.strides.t), scores) };
        for row in 0..count {
            let z = &mut scores[row * ROW..][..wide];
            let mut slopes = [0.0; COLS];
            settings.finish((b, g * n.r + row % n.r, row / n.r), j0, z, &mut slopes[..wide]);
            z[cols..].fill(f32::NEG_INFINITY);
        }
        // SAFETY: as above.
        unsafe { absorb(level, (count, wide), scores, (sums, e), max, total) };
        for row in 0..count {
            let head = b * n.g * n.r + g * n.r + row % n.r;
            settings.drop(head, row / n.r, j0, &mut scores[row * ROW..][..wide]);
        }
        // SAFETY: as above.
        unsafe { values(level, (count, cols, n.e), scores, (v_rows, v.strides.t), (sums, e)) };
    }
}

/// Joins the results of a head's ranges.
///
/// # Safety
/// Nobody else touches the head's results.
unsafe fn join(settings: &Settings, (b, g): (usize, usize), parts: &[&[f32]], out: &Shared<f32>, lse: &Shared<f32>) {
    let n = &settings.sizes;
    let (e, count, heads) = (padded(n.e), n.t * n.r, n.g * n.r);
    for row in 0..count {
        let (i, h) = (row / n.r, g * n.r + row % n.r);
        // SAFETY: by the caller's promise.
        let (out, lse) =
            unsafe { (out.part(((b * n.t + i) * heads + h) * n.e, n.e), lse.part((b * heads + h) * n.t + i, 1)) };
        let max = parts.iter().fold(f32::NEG_INFINITY, |m, p| m.max(p[count * e + row]));
        let mut weights = [0.0; TASKS];
        let mut total = 0.0;
        for (weight, p) in weights.iter_mut().zip(parts) {
            let (m, t) = (p[count * e + row], p[count * (e + 1) + row]);
            // A range that sees nothing; what is not a number stays in its total.
            *weight = if m == f32::NEG_INFINITY { 0.0 } else { (m - max).exp() };
            total += if m == f32::NEG_INFINITY { t } else { t * *weight };
        }
        // A query that sees nothing has no weights.
        let inverse = if total == 0.0 { 0.0 } else { 1.0 / total };
        for (i, p) in parts.iter().enumerate() {
            let sums = &p[row * e..][..n.e];
            if i == 0 {
                scaled(sums, weights[0] * inverse, out);
            } else {
                out.iter_mut().zip(sums).for_each(|(o, s)| *o += weights[i] * inverse * s);
            }
        }
        lse[0] = max + total.ln();
    }
}

/// Scores of `m` rows of queries and `cols` keys, `stride` apart.
///
/// # Safety
/// The vector's instructions exist; there are so many rows of queries, keys and scores.
#[inline(always)]
unsafe fn dots_body<V: Vector>(
    (m, cols, d): (usize, usize, usize),
    queries: &[f32],
    (k, stride): (&[f32], usize),
    scores: &mut [f32],
) {
    let (q, k, scores) = (queries.as_ptr(), k.as_ptr(), scores.as_mut_ptr());
    let at = padded(d);
    let mut j = 0;
    // SAFETY: rows below `m` and keys below `cols` lie in the slices.
    unsafe {
        while j < cols {
            let some = (cols - j).min(4);
            if j + AHEAD + 4 <= cols {
                for ahead in 0..4 {
                    prefetch(std::slice::from_raw_parts(k.add((j + AHEAD + ahead) * stride), d), d);
                }
            }
            // The last keys again rather than keys behind them.
            let keys = [0, 1, 2, 3].map(|i| k.add((j + i).min(cols - 1) * stride));
            let mut i = 0;
            while i < m {
                let (q, z) = (q.add(i * at), scores.add(i * ROW + j));
                i += match m - i {
                    1 => dots_of::<V, 1>(d, (q, at), keys, z, some),
                    2 | 3 => dots_of::<V, 2>(d, (q, at), keys, z, some),
                    _ => dots_of::<V, 4>(d, (q, at), keys, z, some),
                };
            }
            j += 4;
        }
    }
}

/// The same for `M` rows and `some` of four keys; says how many rows.
///
/// # Safety
/// As for [`dots_body`].
#[inline(always)]
unsafe fn dots_of<V: Vector, const M: usize>(
    d: usize,
    (q, at): (*const f32, usize),
    keys: [*const f32; 4],
    z: *mut f32,
    some: usize,
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut acc = [[V::splat(0.0); 4]; M];
        let whole = d / V::LANES * V::LANES;
        for f in (0..whole).step_by(V::LANES) {
            let mut key = [V::splat(0.0); 4];
            for j in 0..4 {
                key[j] = V::load(keys[j].add(f));
            }
            for m in 0..M {
                let q = V::load(q.add(m * at + f));
                for j in 0..4 {
                    acc[m][j] = q.fma(key[j], acc[m][j]);
                }
            }
        }
        for m in 0..M {
            let mut sums = V::sums(acc[m]);
            for f in whole..d {
                for j in 0..4 {
                    sums[j] += *q.add(m * at + f) * *keys[j].add(f);
                }
            }
            for j in 0..some {
                *z.add(m * ROW + j) = sums[j];
            }
        }
    }
    M
}
at_level! {
    unsafe fn dots(size: (usize, usize, usize), queries: &[f32], keys: (&[f32], usize), scores: &mut [f32]) = dots_body;
}

/// Adds `cols` values, `stride` apart, to the sums of `m` rows, by their weights.
///
/// # Safety
/// The vector's instructions exist; there are so many rows of weights, values and sums.
#[inline(always)]
unsafe fn values_body<V: Vector>(
    (m, cols, e): (usize, usize, usize),
    weights: &[f32],
    (v, stride): (&[f32], usize),
    (sums, at): (&mut [f32], usize),
) {
    let (w, v, sums) = (weights.as_ptr(), (v.as_ptr(), stride), sums.as_mut_ptr());
    let mut i = 0;
    // SAFETY: rows below `m` lie in the slices.
    unsafe {
        while i < m {
            let (w, sums) = (w.add(i * ROW), (sums.add(i * at), at));
            i += match m - i {
                1 => some_values::<V, 1>(cols, e, w, v, sums),
                2 | 3 => some_values::<V, 2>(cols, e, w, v, sums),
                _ => some_values::<V, 4>(cols, e, w, v, sums),
            };
        }
    }
}

/// The same for `M` rows; says how many.
///
/// # Safety
/// As for [`values_body`].
#[inline(always)]
unsafe fn some_values<V: Vector, const M: usize>(
    cols: usize,
    e: usize,
    w: *const f32,
    (v, stride): (*const f32, usize),
    (sums, at): (*mut f32, usize),
) -> usize {
    let mut f = 0;
    // SAFETY: columns below `e` lie in the rows.
    unsafe {
        while f < e {
            let (v, sums) = ((v.add(f), stride), (sums.add(f), at));
            let vectors = (e - f) / V::LANES;
            f += V::LANES
                * match vectors {
                    4.. if V::WIDE => sum_of::<V, M, 4>(cols, w, v, sums),
                    2.. => sum_of::<V, M, 2>(cols, w, v, sums),
                    1 => sum_of::<V, M, 1>(cols, w, v, sums),
                    0 => {
                        for (m, c) in (0..M).flat_map(|m| (0..e - f).map(move |c| (m, c))) {
                            let mut sum = *sums.0.add(m * at + c);
                            for j in 0..cols {
                                sum += *w.add(m * ROW + j) * *v.0.add(j * stride + c);
                            }
                            *sums.0.add(m * at + c) = sum;
                        }
                        1
                    }
                };
        }
    }
    M
}

/// The same for `M` rows and `N` vectors; says how many vectors.
///
/// # Safety
/// As for [`values_body`].
#[inline(always)]
unsafe fn sum_of<V: Vector, const M: usize, const N: usize>(
    cols: usize,
    w: *const f32,
    (v, stride): (*const f32, usize),
    (sums, at): (*mut f32, usize),
) -> usize {
    // SAFETY: by the caller's promise.
    unsafe {
        // Few enough sums for the registers.
        let mut acc = [[V::splat(0.0); N]; M];
        for m in 0..M {
            for n in 0..N {
                acc[m][n] = V::load(sums.add(m * at + n * V::LANES));
            }
        }
        for j in 0..cols {
            let width = N * V::LANES;
            if j + AHEAD < cols {
                prefetch(std::slice::from_raw_parts(v.add((j + AHEAD) * stride), width), width);
            }
            let mut row = [V::splat(0.0); N];
            for n in 0..N {
                row[n] = V::load(v.add(j * stride + n * V::LANES));
            }
            for m in 0..M {
                let w = V::splat(*w.add(m * ROW + j));
                for n in 0..N {
                    acc[m][n] = w.fma(row[n], acc[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                acc[m][n].store(sums.add(m * at + n * V::LANES));
            }
        }
    }
    N
}
at_level! {
    unsafe fn values(size: (usize, usize, usize), weights: &[f32], v: (&[f32], usize), sums: (&mut [f32], usize)) = values_body;
}
