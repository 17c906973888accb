//! Products of few rows with a right side that is not packed: `B` is read once, where it lies, at
//! the speed of the memory; packing it would cost more than the product.
//!
//! * **By rows**, when rows of `B` are contiguous: eight of them at a time pass by the sums of some
//!   columns, which stay in the first cache. The order of each sum is that of the tiles, and so are
//!   the results, bit by bit.
//! * **By columns**, when columns are (`x W^T` with a weight stored by outputs): dot products of
//!   columns with all rows at once, in sixteen lanes whose sums are joined at the end. What is in
//!   cache is read several columns at a time, which shares loads of the left side; what comes from
//!   memory one after the other, for a single stream of addresses gets nearly twice the bandwidth of
//!   two to eight.
//!
//! Threads take ranges of columns of all results in one region; no sum is shared between them.

use super::cut::{blocks, threads};
use super::micro::fetch;
use super::{Columns, Finished, Job, Left, Matrix, Right};
use crate::cpu::simd::Level;
use crate::cpu::vector::{Vector, at_level};
use crate::pool::Pool;
use std::marker::PhantomData;

/// The most rows.
pub const ROWS: usize = 8;
/// The longest block of K.
const KC: usize = super::cut::KC;
/// The sums of a task: 8 KiB.
const SUMS: usize = 2048;
/// Floats that are worth a task, and those that are enough for one.
const TASK: std::ops::Range<usize> = 1 << 13..1 << 17;
/// Floats of a right side that stays in a cache from one product to the next.
const CACHED: usize = 1 << 17;

/// Floats by which reading runs ahead.
const AHEAD: usize = 128;

/// K of a sum; longer ones are sums of such sums.
const DEEP: usize = super::cut::SLAB;

/// How a result is computed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rows,
    Columns,
}

fn form(of: &Columns) -> Option<Form> {
    let all = |f: &dyn Fn(&Matrix) -> bool| of.b.iter().all(|b| matches!(b, Right::Plain(_, at) if f(at)));
    if all(&|at| at.col == 1) {
        return Some(Form::Rows);
    }
    all(&|at| at.row == 1).then_some(Form::Columns)
}

/// Whether [`run`] takes a product.
pub(super) fn takes(x: &Job) -> bool {
    let fits = |form| form == Form::Rows || !x.alike;
    x.m <= ROWS && x.right.iter().all(|c| form(c).is_some_and(fits))
}

/// How many columns a task takes.
fn width(m: usize, of: &Columns, k: usize, threads: usize) -> usize {
    let most = SUMS / m;
    match form(of) {
        _ if threads == 1 => most,
        // Wide rows of B.
        Some(Form::Rows) => of.n.div_ceil(4 * threads).next_multiple_of(32).min(most),
        _ => {
            let k = k.max(1);
            let some = (of.n / (8 * threads)).clamp(TASK.start.div_ceil(k), TASK.end.div_ceil(k));
            some.next_multiple_of(16).min(most)
        }
    }
}

/// Computes a product that [`takes`] approves of.
///
/// # Safety
/// As of [`drive`](super::drive::drive).
pub(super) unsafe fn run(level: Level, pool: &Pool, x: &Job, scratch: &mut [f32]) {
    if x.m == 0 {
        return;
    }
    let k = x.left.iter().map(|l| l.k).sum();
    let n = x.right.iter().map(|of| of.n).sum();
    // Reading counts here: a quarter of a megabyte pays for another thread.
    let threads = threads(pool.threads(), 4, n, k);
    let by_columns = x.right.iter().any(|of| form(of) == Some(Form::Columns));
    let laid = if by_columns { interleave_all(x, scratch) } else { &[] };
    let tasks = |of: &Columns| of.n.div_ceil(width(x.m, of, k, threads));
    let one = |mut task: usize| {
        for (result, of) in x.right.iter().enumerate() {
            let count = tasks(of);
            if task >= count {
                task -= count;
                continue;
            }
            let width = width(x.m, of, k, threads);
            let j = task * width;
            let w = width.min(of.n - j);
            // SAFETY: by the caller's promise; tasks have columns of their own.
            unsafe {
                match form(of) {
                    Some(Form::Rows) => by_rows(level, x, of, j, w),
                    _ => by_columns_of(level, x, of, (j, w), laid),
                }
            }
            if let Some(after) = x.after {
                let c = of.c.wrapping_add(j * of.at.col);
                after(&mut Finished { result, rows: 0..x.m, columns: j..j + w, c, at: of.at, life: PhantomData });
            }
            return;
        }
    };
    let count = x.right.iter().map(tasks).sum();
    if threads == 1 { (0..count).for_each(one) } else { pool.run(count, &one) }
}

/// Scratch floats of a product of `m` rows.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    // A last part of sixteen columns for each left side; there are few.
    if m <= ROWS { m * (k + 16 * 16) } else { 0 }
}

/// Whether a left side is read in place.
fn in_place(left: &Left, m: usize) -> bool {
    m == 1 && left.at.col == 1
}

/// Left sides, sixteen columns of every row after each other: rows that are apart by a power of two
/// would push each other out of the cache.
fn interleave_all<'a>(x: &Job, scratch: &'a mut [f32]) -> &'a [f32] {
    let mut used = 0;
    for left in x.left.iter().filter(|left| !in_place(left, x.m)) {
        let len = x.m * left.k.next_multiple_of(16);
        assert!(scratch.len() >= used + len, "a product of few rows needs scratch");
        let to = &mut scratch[used..used + len];
        for i in 0..x.m {
            for p in 0..left.k {
                to[place(x.m, p, i)] = left.data[i * left.at.row + p * left.at.col];
            }
        }
        used += len;
    }
    scratch
}

/// Where [`interleave_all`] puts column `p` of row `i`.
#[inline(always)]
fn place(m: usize, p: usize, i: usize) -> usize {
    p / 16 * 16 * m + i * 16 + p % 16
}

/// # Safety
/// As of [`run`].
unsafe fn by_rows(level: Level, x: &Job, of: &Columns, j: usize, w: usize) {
    let m = x.m;
    let mut sums = [0f32; SUMS];
    let mut a = [0f32; KC * ROWS];
    let mut fresh = !x.accumulate;
    for (left, b) in x.left.iter().zip(of.b) {
        let Right::Plain(b, at) = b else { unreachable!("`takes` has looked") };
        for (k0, k) in blocks(left.k) {
            for p in 0..k {
                for i in 0..m {
                    a[p * m + i] = left.data[i * left.at.row + (k0 + p) * left.at.col];
                }
            }
            sums[..m * w].fill(0.0);
            let b = b.as_ptr().wrapping_add(k0 * at.row + j * at.col);
            // SAFETY: the block lies in B, as was checked.
            unsafe { add_rows(level, &mut Rows { m, w, k, a: &a, b, b_row: at.row, sums: &mut sums }) };
            for i in 0..m {
                for q in 0..w {
                    // SAFETY: by the caller's promise.
                    unsafe {
                        let c = of.c.add(i * of.at.row + (j + q) * of.at.col);
                        let old = if !fresh { *c } else { of.bias.map_or(0.0, |bias| bias[j + q]) };
                        let plain = fresh && of.bias.is_none();
                        *c = if plain { sums[i * w + q] } else { old + sums[i * w + q] };
                    }
                }
            }
            fresh = false;
        }
    }
}

/// `sums[m w] += a^T b`, with `a[k m]`.
struct Rows<'a> {
    m: usize,
    w: usize,
    k: usize,
    a: &'a [f32],
    b: *const f32,
    b_row: usize,
    sums: &'a mut [f32],
}

/// `Q` rows of B from row `p`, all columns, by `M` rows of A.
///
/// # Safety
/// The rows lie in the block, and the level is the processor's.
#[inline(always)]
unsafe fn pass<V: Vector, const M: usize, const Q: usize>(x: &mut Rows, p: usize) {
    let (rows, sums) = (x.b.wrapping_add(p * x.b_row), x.sums.as_mut_ptr());
    let a = x.a.as_ptr().wrapping_add(p * M);
    let mut j = 0;
    // SAFETY: by the caller's promise; the sums hold `M` rows of `w`, and `a` columns of `M`.
    unsafe {
        while j + V::LANES <= x.w {
            let mut b = [V::splat(0.0); Q];
            for q in 0..Q {
                let at = rows.add(q * x.b_row + j);
                fetch(at.wrapping_add(AHEAD));
                b[q] = V::load(at);
            }
            for i in 0..M {
                let to = sums.add(i * x.w + j);
                let mut sum = V::load(to);
                for q in 0..Q {
                    sum = V::splat(*a.add(q * M + i)).fma(b[q], sum);
                }
                sum.store(to);
            }
            j += V::LANES;
        }
        while j < x.w {
            for i in 0..M {
                for q in 0..Q {
                    let sum = &mut *sums.add(i * x.w + j);
                    *sum = V::one(*a.add(q * M + i), *rows.add(q * x.b_row + j), *sum);
                }
            }
            j += 1;
        }
    }
}

#[inline(always)]
unsafe fn rows_body<V: Vector, const M: usize>(x: &mut Rows) {
    assert!(x.m == M && x.sums.len() >= M * x.w && x.a.len() >= M * x.k, "the block is whole");
    let mut p = 0;
    // SAFETY: by the caller's promise; rows below `k`.
    unsafe {
        while p + 8 <= x.k {
            pass::<V, M, 8>(x, p);
            p += 8;
        }
        while p < x.k {
            pass::<V, M, 1>(x, p);
            p += 1;
        }
    }
}
at_level! { unsafe fn rows_of[const M](x: &mut Rows) = rows_body; }

/// # Safety
/// The rows and columns of `b` can be read, and the level is the processor's.
unsafe fn add_rows(level: Level, x: &mut Rows) {
    // SAFETY: by the caller's promise.
    unsafe {
        match x.m {
            1 => rows_of::<1>(level, x),
            2 => rows_of::<2>(level, x),
            3 => rows_of::<3>(level, x),
            4 => rows_of::<4>(level, x),
            5 => rows_of::<5>(level, x),
            6 => rows_of::<6>(level, x),
            7 => rows_of::<7>(level, x),
            _ => rows_of::<8>(level, x),
        }
    }
}

/// # Safety
/// As of [`run`].
unsafe fn by_columns_of(level: Level, x: &Job, of: &Columns, (j, w): (usize, usize), laid: &[f32]) {
    let mut used = 0;
    let (last, mut add) = (x.left.iter().rposition(|l| l.k > 0).unwrap_or(0), x.accumulate);
    for (left, b) in x.left.iter().zip(of.b).take(last + 1) {
        let Right::Plain(b, at) = b else { unreachable!("`takes` has looked") };
        let a = if in_place(left, x.m) {
            left.data
        } else {
            used += x.m * left.k.next_multiple_of(16);
            &laid[used - x.m * left.k.next_multiple_of(16)..used]
        };
        let bias = of.bias.filter(|_| !add).map(|bias| &bias[j..j + w]);
        let (b, c) = (b.as_ptr().wrapping_add(j * at.col), of.c.wrapping_add(j * of.at.col));
        let cached = of.n * left.k <= CACHED;
        let x = Dots { m: x.m, w, k: left.k, a, b, b_col: at.col, bias, c, at: of.at, add, cached };
        // SAFETY: the columns lie in B and in C, as was checked.
        unsafe { dots(level, &x) }
        add = true;
    }
}

/// `c[m w] (+)= a b (+ bias)` with interleaved rows of `a` and contiguous columns of `b`.
struct Dots<'a> {
    m: usize,
    w: usize,
    k: usize,
    a: &'a [f32],
    b: *const f32,
    b_col: usize,
    bias: Option<&'a [f32]>,
    c: *mut f32,
    at: Matrix,
    add: bool,
    /// Whether B is small enough to be in cache.
    cached: bool,
}

/// `W` columns from `j`, by all `M` rows, [`DEEP`] of K at a time.
///
/// # Safety
/// They lie in the matrices, and the level is the processor's.
#[inline(always)]
unsafe fn dots_of<V: Vector, const M: usize, const W: usize>(x: &Dots, j: usize) {
    let mut k0 = 0;
    loop {
        let k = DEEP.min(x.k - k0);
        // SAFETY: by the caller's promise.
        unsafe {
            let (a, b) = (x.a.as_ptr().add(k0 * M), x.b.add(j * x.b_col + k0));
            let mut sums = [[V::splat(0.0); W]; M];
            let mut p = 0;
            while p + V::LANES <= k {
                let mut y = [V::splat(0.0); W];
                for q in 0..W {
                    let at = b.add(q * x.b_col + p);
                    if W > 1 {
                        fetch(at.wrapping_add(AHEAD));
                    }
                    y[q] = V::load(at);
                }
                for i in 0..M {
                    let x = V::load(a.add(place(M, p, i)));
                    for q in 0..W {
                        sums[i][q] = x.fma(y[q], sums[i][q]);
                    }
                }
                p += V::LANES;
            }
            for i in 0..M {
                for q in 0..W {
                    let mut sum = sums[i][q].sum();
                    for p in p..k {
                        sum = V::one(*a.add(place(M, p, i)), *b.add(q * x.b_col + p), sum);
                    }
                    let c = x.c.add(i * x.at.row + (j + q) * x.at.col);
                    *c = match (x.add || k0 > 0, x.bias) {
                        (true, _) => *c + sum,
                        (false, Some(bias)) => bias[j + q] + sum,
                        (false, None) => sum,
                    };
                }
            }
        }
        k0 += DEEP;
        if k0 >= x.k {
            return;
        }
    }
}

#[inline(always)]
unsafe fn dots_body<V: Vector, const M: usize, const W: usize>(x: &Dots) {
    let mut j = 0;
    // SAFETY: by the caller's promise; columns below `w`.
    unsafe {
        while j + W <= x.w {
            dots_of::<V, M, W>(x, j);
            j += W;
        }
        while j < x.w {
            dots_of::<V, M, 1>(x, j);
            j += 1;
        }
    }
}
at_level! { unsafe fn dots_all[const M, W](x: &Dots) = dots_body; }

/// # Safety
/// The matrices hold what `x` says, and the level is the processor's.
unsafe fn dots(level: Level, x: &Dots) {
    // Sums enough to hide the latency, and no more than registers.
    // SAFETY: by the caller's promise.
    unsafe {
        if !x.cached {
            match x.m {
                1 => return dots_all::<1, 1>(level, x),
                2 => return dots_all::<2, 1>(level, x),
                3 => return dots_all::<3, 1>(level, x),
                4 => return dots_all::<4, 1>(level, x),
                _ => {}
            }
        }
        match x.m {
            1 => dots_all::<1, 8>(level, x),
            2 => dots_all::<2, 4>(level, x),
            3 => dots_all::<3, 4>(level, x),
            4 => dots_all::<4, 4>(level, x),
            5 => dots_all::<5, 4>(level, x),
            6 => dots_all::<6, 4>(level, x),
            7 => dots_all::<7, 3>(level, x),
            _ => dots_all::<8, 3>(level, x),
        }
    }
}
