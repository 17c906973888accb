//! Products of few rows with a right side that is not packed: `B` is read once, where it lies, at
//! the speed of the memory; packing it would cost more than the product.
//!
//! * **By rows**, when rows of `B` are contiguous: eight of them at a time pass by the sums of some
//!   columns, which stay in the first cache. The order of each sum is that of the tiles, and so are
//!   the results, bit by bit.
//! * **By columns**, when columns are (`x W^T` with a weight stored by outputs): dot products of
//!   several columns with all rows at once, in sixteen lanes whose sums are joined at the end.
//!
//! Threads take ranges of columns; no sum is shared between them.

use super::cut::{blocks, threads};
use super::{Columns, Finished, Job, Left, Matrix, Right};
use crate::cpu::simd::{Level, level};
use crate::pool::Pool;
use std::marker::PhantomData;

/// The most rows.
pub(super) const ROWS: usize = 8;
/// The longest block of K.
const KC: usize = super::cut::KC;
/// The sums of a task: 8 KiB.
const SUMS: usize = 2048;

/// How a result is computed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rows,
    Columns,
}

fn form(left: &[Left], of: &Columns) -> Option<Form> {
    let all = |f: &dyn Fn(&Left, &Matrix) -> bool| {
        left.iter().zip(of.b).all(|(l, b)| matches!(b, Right::Plain(_, at) if f(l, at)))
    };
    if all(&|_, at| at.col == 1) {
        return Some(Form::Rows);
    }
    all(&|l, at| at.row == 1 && l.at.col == 1).then_some(Form::Columns)
}

/// Whether [`run`] takes a product.
pub(super) fn takes(x: &Job) -> bool {
    x.m <= ROWS && x.right.iter().all(|c| form(x.left, c).is_some())
}

struct Shared<'a>(&'a Job<'a>);
// SAFETY: tasks write disjoint columns of the results.
unsafe impl Sync for Shared<'_> {}

/// Computes a product that [`takes`] approves of.
///
/// # Safety
/// As of [`drive`](super::drive::drive).
pub(super) unsafe fn run(pool: &Pool, x: &Job) {
    if x.m == 0 {
        return;
    }
    let shared = Shared(x);
    for (result, of) in x.right.iter().enumerate().filter(|(_, of)| of.n > 0) {
        let k = x.left.iter().map(|l| l.k).sum();
        // Reading counts here: a quarter of a megabyte pays for another thread.
        let threads = threads(pool.threads(), 4, of.n, k);
        let most = SUMS / x.m;
        let width = if threads == 1 { most } else { of.n.div_ceil(4 * threads).next_multiple_of(32).min(most) };
        let form = form(x.left, of).expect("the caller has asked");
        pool.run(of.n.div_ceil(width), &|task| {
            let x = &shared;
            let (j, x) = (task * width, x.0);
            let w = width.min(of.n - j);
            let c = of.c.wrapping_add(j * of.at.col);
            // SAFETY: by the caller's promise; tasks have columns of their own.
            unsafe {
                match form {
                    Form::Rows => by_rows(x, of, j, w),
                    Form::Columns => by_columns(x, of, j, w),
                }
            }
            if let Some(after) = x.after {
                after(&mut Finished { result, rows: 0..x.m, columns: j..j + w, c, at: of.at, life: PhantomData });
            }
        });
    }
}

/// # Safety
/// As of [`run`].
unsafe fn by_rows(x: &Job, of: &Columns, j: usize, w: usize) {
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
            unsafe { add_rows(Rows { m, w, k, a: &a, b, b_row: at.row, sums: &mut sums }) };
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

#[inline(always)]
fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Asks for the cache line of an address, which may be none.
#[inline(always)]
fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; part of every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    let _ = at;
}

/// `Q` rows of B from row `p`, `W` columns from column `j`, by `M` rows of A.
///
/// # Safety
/// They lie in the block.
#[inline(always)]
unsafe fn step<const FUSED: bool, const M: usize, const Q: usize, const W: usize>(x: &mut Rows, p: usize, j: usize) {
    let mut b = [[0f32; W]; Q];
    for q in 0..Q {
        let row = x.b.wrapping_add((p + q) * x.b_row + j);
        fetch(row.wrapping_add(Q * x.b_row));
        // SAFETY: by the caller's promise.
        b[q] = unsafe { row.cast::<[f32; W]>().read_unaligned() };
    }
    for i in 0..M {
        // SAFETY: the sums hold `m` rows of `w`, and `a` holds `k` columns of `m`.
        unsafe {
            let to = x.sums.as_mut_ptr().add(i * x.w + j).cast::<[f32; W]>();
            let mut sum = to.read_unaligned();
            for q in 0..Q {
                let a = *x.a.get_unchecked((p + q) * M + i);
                for l in 0..W {
                    sum[l] = fma::<FUSED>(a, b[q][l], sum[l]);
                }
            }
            to.write_unaligned(sum);
        }
    }
}

/// `Q` rows of B from row `p`, all columns.
///
/// # Safety
/// They lie in the block.
#[inline(always)]
unsafe fn pass<const FUSED: bool, const M: usize, const Q: usize>(x: &mut Rows, p: usize) {
    let mut j = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        while j + 16 <= x.w {
            step::<FUSED, M, Q, 16>(x, p, j);
            j += 16;
        }
        while j < x.w {
            step::<FUSED, M, Q, 1>(x, p, j);
            j += 1;
        }
    }
}

#[inline(always)]
fn rows_of<const FUSED: bool, const M: usize>(x: &mut Rows) {
    assert!(x.m == M && x.sums.len() >= M * x.w && x.a.len() >= M * x.k, "the block is whole");
    let mut p = 0;
    // SAFETY: rows below `k`, by the promise of `add_rows`' callers.
    unsafe {
        while p + 8 <= x.k {
            pass::<FUSED, M, 8>(x, p);
            p += 8;
        }
        while p < x.k {
            pass::<FUSED, M, 1>(x, p);
            p += 1;
        }
    }
}

#[inline(always)]
fn rows_body<const FUSED: bool>(mut x: Rows) {
    match x.m {
        1 => rows_of::<FUSED, 1>(&mut x),
        2 => rows_of::<FUSED, 2>(&mut x),
        3 => rows_of::<FUSED, 3>(&mut x),
        4 => rows_of::<FUSED, 4>(&mut x),
        5 => rows_of::<FUSED, 5>(&mut x),
        6 => rows_of::<FUSED, 6>(&mut x),
        7 => rows_of::<FUSED, 7>(&mut x),
        _ => rows_of::<FUSED, 8>(&mut x),
    }
}
crate::dispatch! { fn rows_fused(x: Rows<'_>) = rows_body::<true>; }

/// # Safety
/// The rows and columns of `b` can be read.
unsafe fn add_rows(x: Rows) {
    // Without the instruction a fused multiply-add is a call of the library.
    if level() == Level::Base && !cfg!(target_arch = "aarch64") { rows_body::<false>(x) } else { rows_fused(x) }
}

/// # Safety
/// As of [`run`].
unsafe fn by_columns(x: &Job, of: &Columns, j: usize, w: usize) {
    let mut fresh = !x.accumulate;
    for (left, b) in x.left.iter().zip(of.b) {
        let Right::Plain(b, at) = b else { unreachable!("`takes` has looked") };
        let b = b.as_ptr().wrapping_add(j * at.col);
        let bias = of.bias.filter(|_| fresh).map(|bias| &bias[j..j + w]);
        let c = of.c.wrapping_add(j * of.at.col);
        let add = !fresh;
        // SAFETY: the columns lie in B and in C, as was checked.
        let x =
            Dots { m: x.m, w, k: left.k, a: left.data, a_row: left.at.row, b, b_col: at.col, bias, c, at: of.at, add };
        if level() == Level::Base && !cfg!(target_arch = "aarch64") {
            dots_body::<false>(x)
        } else {
            dots_fused(x)
        }
        fresh = false;
    }
}

/// `c[m w] (+)= a b (+ bias)` with contiguous rows of `a` and columns of `b`.
struct Dots<'a> {
    m: usize,
    w: usize,
    k: usize,
    a: &'a [f32],
    a_row: usize,
    b: *const f32,
    b_col: usize,
    bias: Option<&'a [f32]>,
    c: *mut f32,
    at: Matrix,
    add: bool,
}

/// The sum of sixteen lanes: halves onto each other.
#[inline(always)]
fn total(mut x: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            x[i] += x[i + half];
        }
    }
    x[0]
}

/// `W` columns from `j`, by all `M` rows.
#[inline(always)]
fn dots_of<const FUSED: bool, const M: usize, const W: usize>(x: &Dots, j: usize) {
    let mut sums = [[[0f32; 16]; W]; M];
    let mut p = 0;
    // SAFETY: the rows of A and columns of B were checked to hold `k` values; C, `M` rows.
    unsafe {
        while p + 16 <= x.k {
            let mut b = [[0f32; 16]; W];
            for q in 0..W {
                let from = x.b.add((j + q) * x.b_col + p);
                fetch(from.wrapping_add(128));
                b[q] = from.cast::<[f32; 16]>().read_unaligned();
            }
            for i in 0..M {
                let a = x.a.as_ptr().add(i * x.a_row + p).cast::<[f32; 16]>().read_unaligned();
                for q in 0..W {
                    for l in 0..16 {
                        sums[i][q][l] = fma::<FUSED>(a[l], b[q][l], sums[i][q][l]);
                    }
                }
            }
            p += 16;
        }
        for i in 0..M {
            for q in 0..W {
                let mut sum = total(sums[i][q]);
                for p in p..x.k {
                    sum = fma::<FUSED>(*x.a.as_ptr().add(i * x.a_row + p), *x.b.add((j + q) * x.b_col + p), sum);
                }
                let c = x.c.add(i * x.at.row + (j + q) * x.at.col);
                *c = match (x.add, x.bias) {
                    (true, _) => *c + sum,
                    (false, Some(bias)) => bias[j + q] + sum,
                    (false, None) => sum,
                };
            }
        }
    }
}

#[inline(always)]
fn dots_all<const FUSED: bool, const M: usize, const W: usize>(x: &Dots) {
    let mut j = 0;
    while j + W <= x.w {
        dots_of::<FUSED, M, W>(x, j);
        j += W;
    }
    while j < x.w {
        dots_of::<FUSED, M, 1>(x, j);
        j += 1;
    }
}

#[inline(always)]
fn dots_body<const FUSED: bool>(x: Dots) {
    // Up to 24 sums at once: as many as registers, and enough to hide the latency.
    match x.m {
        1 => dots_all::<FUSED, 1, 8>(&x),
        2 => dots_all::<FUSED, 2, 8>(&x),
        3 => dots_all::<FUSED, 3, 4>(&x),
        4 => dots_all::<FUSED, 4, 4>(&x),
        5 => dots_all::<FUSED, 5, 4>(&x),
        6 => dots_all::<FUSED, 6, 4>(&x),
        7 => dots_all::<FUSED, 7, 3>(&x),
        _ => dots_all::<FUSED, 8, 3>(&x),
    }
}
crate::dispatch! { fn dots_fused(x: Dots<'_>) = dots_body::<true>; }
