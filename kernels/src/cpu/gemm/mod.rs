//! Matrix products in `f32` at the machine's limit.
//!
//! One call computes `C_j (+)= sum_i A_i B_ij (+ bias_j)` for lists of left sides `A_i` of equal
//! height and of results `C_j`. One of each is the ordinary product ([`gemm`]); several results
//! share the packing of `A` and one parallel region (queries, keys and values; gate and up);
//! several left sides are a sum that needs no intermediate result (the gradient of such a group's
//! input). All matrices have any strides, and a right side may be packed beforehand
//! ([`pack_b`], [`Panels`]), as weights are.
//!
//! The construction is that of BLIS (Van Zee and van de Geijn 2015): a micro-kernel keeps a tile of
//! C in registers (`micro`) and reads packed panels (`pack`) of blocks cut to the caches
//! (`cut`); `drive` hands tasks to the threads, first the packing of both sides, then blocks of
//! a two-dimensional grid over C. Small right sides are read where they lie; products of up to
//! [`FEW_ROWS`] rows (or columns) with a side that is not packed go to `skinny`, which reads it
//! once at the memory's speed.
//!
//! * Nothing allocates: the caller gives [`scratch_len`] floats.
//! * K is cut by its size alone and every element is summed in one order, so results do not depend
//!   on the number of threads, on the other rows or columns, or on what was packed beforehand. Few
//!   rows with a transposed right side are summed in lanes, in another order, as fixed; where results
//!   must not depend on the number of rows either, [`Product::alike`] forgoes that.
//! * Infinities and NaNs spread as in the three plain loops: no product is skipped.
//! * An epilogue ([`Product::after`]) is called with each finished block of C by the thread that
//!   finished it, while the block is in that core's cache.

mod cut;
mod drive;
mod micro;
mod pack;
mod skinny;
#[cfg(test)]
mod tests;

pub use pack::{Panels, pack_b, packed_len};
/// The most rows of products whose right sides are read where they lie, in an order of their own;
/// with more, results are the same whether a right side was packed beforehand or not.
pub use skinny::ROWS as FEW_ROWS;

use super::quant;
use super::simd::level;
use crate::pool::Pool;
use std::marker::PhantomData;
use std::ops::Range;

/// A matrix in a slice: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl Matrix {
    /// Rows of `n` values one after the other.
    pub fn rows(n: usize) -> Matrix {
        Matrix { row: n, col: 1 }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Matrix {
        Matrix { row: self.col, col: self.row }
    }
}

/// A left side: `m` rows of `k` values.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// Its width.
    pub k: usize,
    /// Its values.
    pub data: &'a [f32],
    /// Its strides.
    pub at: Matrix,
}

/// A right side: `k` rows of `n` values.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// Values with strides.
    Plain(&'a [f32], Matrix),
    /// Packed beforehand.
    Packed(Panels<'a>),
    /// Weights in fewer bits. All right sides of one result are, or none.
    Rounded(&'a quant::Packed),
}

/// A result of `m` rows and `n` columns, and the right sides that lead to it.
pub struct Columns<'a> {
    pub(in crate::cpu) n: usize,
    pub(in crate::cpu) b: &'a [Right<'a>],
    pub(in crate::cpu) bias: Option<&'a [f32]>,
    pub(in crate::cpu) c: *mut f32,
    len: usize,
    pub(in crate::cpu) at: Matrix,
    life: PhantomData<&'a mut [f32]>,
}
// SAFETY: the result is written in disjoint blocks, by the functions of this module only.
unsafe impl Sync for Columns<'_> {}
// SAFETY: a borrowed mutable slice may be sent.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// `n` columns in `c`, from one right side for every left side.
    pub fn new(n: usize, b: &'a [Right<'a>], c: &'a mut [f32], at: Matrix) -> Columns<'a> {
        Columns { n, b, bias: None, c: c.as_mut_ptr(), len: c.len(), at, life: PhantomData }
    }

    /// The same in a place that something else writes too, when blocks are finished.
    ///
    /// # Safety
    /// The `len` values at `c` are there for `'a`, and are touched by nobody before they are
    /// finished.
    pub(super) unsafe fn at(n: usize, b: &'a [Right<'a>], c: *mut f32, len: usize, at: Matrix) -> Columns<'a> {
        Columns { n, b, bias: None, c, len, at, life: PhantomData }
    }

    /// Adds `bias[j]` to column `j`.
    pub fn bias(mut self, bias: Option<&'a [f32]>) -> Columns<'a> {
        self.bias = bias;
        self
    }

    pub(in crate::cpu) fn is_rounded(&self) -> bool {
        self.b.iter().any(|b| matches!(b, Right::Rounded(_)))
    }
}

/// A block of a result of which nothing is missing.
pub struct Finished<'a> {
    /// The result's place in the list.
    pub result: usize,
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub columns: Range<usize>,
    c: *mut f32,
    at: Matrix,
    life: PhantomData<&'a mut [f32]>,
}

impl Finished<'_> {
    /// # Safety
    /// Nobody else touches the block, whose first element is `c`, while this lives.
    pub(in crate::cpu) unsafe fn new(
        result: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        c: *mut f32,
        at: Matrix,
    ) -> Self {
        Finished { result, rows, columns, c, at, life: PhantomData }
    }

    /// The block's part of row `i`, one of `rows`.
    ///
    /// # Panics
    /// When the row is not the block's, or its values are not next to each other.
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(self.rows.contains(&i), "a block has its own rows only");
        assert!(self.at.col == 1 || self.columns.len() <= 1, "the values of a row are apart");
        let from = self.c.wrapping_add((i - self.rows.start) * self.at.row);
        // SAFETY: the block lies in the result, and only its task touches it until `after` returns.
        unsafe { std::slice::from_raw_parts_mut(from, self.columns.len()) }
    }

    /// The address of the block's first element, and the strides.
    pub fn place(&mut self) -> (*mut f32, Matrix) {
        (self.c, self.at)
    }
}

/// What is called with finished blocks: each element of every result is in one of them.
pub type After<'a> = dyn Fn(&mut Finished) + Sync + 'a;

/// A product, or several that share left sides.
pub struct Product<'a, 'c> {
    /// Rows of all left sides and results.
    pub m: usize,
    /// The left sides; at least one.
    pub left: &'a [Left<'a>],
    /// The results.
    pub right: &'a mut [Columns<'c>],
    /// Adds to the results instead of replacing them; they then have no bias.
    pub accumulate: bool,
    /// Sums every element in the same order, however many rows and columns there are.
    pub alike: bool,
    /// The epilogue.
    pub after: Option<&'a After<'a>>,
}

/// A product whose results are this call's alone.
#[derive(Clone, Copy)]
struct Job<'a> {
    m: usize,
    left: &'a [Left<'a>],
    right: &'a [Columns<'a>],
    accumulate: bool,
    alike: bool,
    after: Option<&'a After<'a>>,
}

impl<'a> Job<'a> {
    fn of(x: &'a mut Product) -> Job<'a> {
        let Product { m, accumulate, alike, after, .. } = *x;
        Job { m, left: x.left, right: x.right, accumulate, alike, after }
    }
}

/// The largest index that a matrix of `m` by `n` touches, plus one.
pub(super) fn reach(m: usize, n: usize, s: Matrix) -> usize {
    if m == 0 || n == 0 { 0 } else { (m - 1) * s.row + (n - 1) * s.col + 1 }
}

/// Scratch floats of a product of `m` rows, whose left sides have `k` columns in all, with results
/// of so many columns each; `plain` says whether any right side is not packed beforehand.
pub fn scratch_len(m: usize, k: usize, n: impl IntoIterator<Item = usize>, plain: bool) -> usize {
    let (mut n, mut scratch) = (n.into_iter().peekable(), 0);
    let first = n.next();
    if let (Some(n), None) = (first, n.peek()) {
        // A single product may be computed as the transposed one.
        scratch = drive::scratch_len(n, k, [m], plain).max(skinny::scratch_len(n, k));
    }
    scratch.max(skinny::scratch_len(m, k)).max(drive::scratch_len(m, k, first.into_iter().chain(n), plain))
}

/// Scratch floats of [`gemm`].
pub fn gemm_scratch((m, n, k): (usize, usize, usize)) -> usize {
    scratch_len(m, k, [n], true)
}

/// Computes a product.
///
/// # Panics
/// When a matrix reaches beyond its slice, elements of a result share a place, sizes disagree, or
/// there is less scratch than [`scratch_len`].
pub fn product(pool: &Pool, x: &mut Product, scratch: &mut [f32]) {
    assert!(!x.left.is_empty(), "a product has a left side");
    for c in x.right.iter() {
        assert_eq!(c.b.len(), x.left.len(), "every left side has a right side");
        for (left, b) in x.left.iter().zip(c.b) {
            let (len, at) = match b {
                Right::Plain(data, at) => (data.len(), *at),
                Right::Packed(p) => {
                    assert!(p.n == c.n && p.k == left.k, "a packed matrix has another size");
                    (p.n * p.k, Matrix::rows(p.n))
                }
                Right::Rounded(w) => {
                    assert!(w.size() == (c.n, left.k), "a packed matrix has another size");
                    (c.n * left.k, Matrix::rows(c.n))
                }
            };
            check((x.m, c.n, left.k), (left.data.len(), left.at), (len, at), (c.len, c.at));
        }
        let bias = c.bias.is_none_or(|b| b.len() == c.n && !x.accumulate);
        assert!(bias, "a bias has a value for every column, and replaces the old result");
    }
    if x.right.iter().any(Columns::is_rounded) {
        for (j, c) in x.right.iter().enumerate().filter(|(_, c)| !c.is_rounded()) {
            let named = |f: &mut Finished| {
                f.result = j;
                x.after.iter().for_each(|after| after(f));
            };
            let after: Option<&After> = if x.after.is_some() { Some(&named) } else { None };
            let right = std::slice::from_ref(c);
            let job = Job { m: x.m, left: x.left, right, accumulate: x.accumulate, alike: x.alike, after };
            // SAFETY: as below.
            unsafe { choose(pool, &job, scratch) }
        }
        // SAFETY: as below.
        return unsafe { quant::product::drive(level(), pool, x, scratch) };
    }
    // SAFETY: as asserted; the results are borrowed mutably, each for itself.
    unsafe { choose(pool, &Job::of(x), scratch) }
}

/// Chooses how a product is computed.
///
/// # Safety
/// As of [`drive::drive`].
unsafe fn choose(pool: &Pool, x: &Job, scratch: &mut [f32]) {
    // SAFETY: the caller's promise is passed on; the transposed product has the same elements.
    unsafe {
        if let ([l], [of], None) = (x.left, x.right, x.after)
            && let ([Right::Plain(data, at)], None) = (of.b, of.bias)
            && (of.at.col != 1 && of.at.row == 1 || of.n <= skinny::ROWS && of.n < x.m)
        {
            let b = [Right::Plain(l.data, l.at.transposed())];
            let left = [Left { k: l.k, data, at: at.transposed() }];
            let right = [Columns { n: x.m, b: &b, bias: None, at: of.at.transposed(), life: PhantomData, ..*of }];
            let turned = Job { m: of.n, left: &left, right: &right, ..*x };
            if of.at.col != 1 || skinny::takes(&turned) {
                return one_way(pool, &turned, scratch);
            }
        }
        one_way(pool, x, scratch);
    }
}

/// # Safety
/// As of [`drive::drive`].
unsafe fn one_way(pool: &Pool, x: &Job, scratch: &mut [f32]) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if skinny::takes(x) {
            skinny::run(level(), pool, x, scratch)
        } else {
            drive::drive(pool, micro::micro(), x, scratch)
        }
    }
}

/// `c[m n] = a[m k] b[k n]`, added to `c` when `accumulate` is set. `scratch` holds
/// [`gemm_scratch`] floats.
///
/// # Panics
/// As [`product`] does.
pub fn gemm(
    pool: &Pool,
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    sa: Matrix,
    b: &[f32],
    sb: Matrix,
    c: &mut [f32],
    sc: Matrix,
    accumulate: bool,
    scratch: &mut [f32],
) {
    check((m, n, k), (a.len(), sa), (b.len(), sb), (c.len(), sc));
    // SAFETY: as was checked; the result is borrowed mutably.
    unsafe { gemm_raw(pool, (m, n, k), a, sa, b, sb, c.as_mut_ptr(), sc, (accumulate, false), scratch) }
}

/// One product's sizes and places.
fn check(
    (m, n, k): (usize, usize, usize),
    (a, sa): (usize, Matrix),
    (b, sb): (usize, Matrix),
    (c, sc): (usize, Matrix),
) {
    assert!(reach(m, k, sa) <= a && reach(k, n, sb) <= b && reach(m, n, sc) <= c, "a matrix is cut off");
    let distinct = (m <= 1 || sc.row > 0) && (n <= 1 || sc.col > 0);
    let nested = m <= 1 || n <= 1 || sc.row > (n - 1) * sc.col || sc.col > (m - 1) * sc.row;
    assert!(m == 0 || n == 0 || distinct && nested, "elements of a result share a place");
}

/// The same on a bare result; the second flag is [`Product::alike`].
///
/// # Safety
/// All elements of the three matrices must lie in their allocations, and those of `c` must be
/// distinct and touched by nobody else.
pub(super) unsafe fn gemm_raw(
    pool: &Pool,
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    sa: Matrix,
    b: &[f32],
    sb: Matrix,
    c: *mut f32,
    sc: Matrix,
    (accumulate, alike): (bool, bool),
    scratch: &mut [f32],
) {
    debug_assert!(reach(m, k, sa) <= a.len() && reach(k, n, sb) <= b.len());
    let b = [Right::Plain(b, sb)];
    let left = [Left { k, data: a, at: sa }];
    let right = &mut [Columns { n, b: &b, bias: None, c, len: reach(m, n, sc), at: sc, life: PhantomData }];
    let x = &mut Product { m, left: &left, right, accumulate, alike, after: None };
    // SAFETY: the caller's promise is passed on.
    unsafe { choose(pool, &Job::of(x), scratch) }
}
