//! Batches of matrix products, and sums over the end.

use super::gemm::{Matrix, gemm_raw, gemm_scratch, reach};
use super::reduce::{Reduction, reduce_f32};
use super::share::with_scratch;
use crate::pool::Pool;

/// A batch: its sizes and the strides of the three matrices along each.
pub struct Batched {
    /// The size of each batch dimension.
    pub sizes: Vec<usize>,
    /// Strides in the first operand.
    pub a: Vec<usize>,
    /// Strides in the second operand.
    pub b: Vec<usize>,
    /// Strides in the result, whose matrices do not overlap.
    pub c: Vec<usize>,
    /// As of products ([`Product::alike`](super::gemm::Product::alike)).
    pub alike: bool,
}

impl Batched {
    /// Entries.
    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether the threads share each product, rather than take whole ones.
    fn shared(&self, (m, n, k): (usize, usize, usize), threads: usize) -> bool {
        self.count() < threads || m * n * k > 1 << 24
    }

    /// Scratch floats of [`batched_gemm`] on so many threads.
    pub fn scratch(&self, size: (usize, usize, usize), threads: usize) -> usize {
        gemm_scratch(size) * if self.shared(size, threads) { 1 } else { threads.min(self.count()).max(1) }
    }

    fn offsets(&self, mut index: usize) -> (usize, usize, usize) {
        let (mut a, mut b, mut c) = (0, 0, 0);
        for d in (0..self.sizes.len()).rev() {
            let i = index % self.sizes[d];
            index /= self.sizes[d];
            a += i * self.a[d];
            b += i * self.b[d];
            c += i * self.c[d];
        }
        (a, b, c)
    }
}

struct Out(*mut f32);
// SAFETY: each batch entry is written by one thread, and entries do not overlap.
unsafe impl Sync for Out {}
impl Out {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// `c = a b` for every entry of a batch: threads share one product if it is large or alone, and
/// take whole products otherwise. `scratch` holds [`Batched::scratch`] floats.
///
/// # Panics
/// When a matrix reaches beyond its slice, or result matrices overlap.
pub fn batched_gemm(
    pool: &Pool,
    batch: &Batched,
    (m, n, k): (usize, usize, usize),
    (a, sa): (&[f32], Matrix),
    (b, sb): (&[f32], Matrix),
    (c, sc): (&mut [f32], Matrix),
    scratch: &mut [f32],
) {
    let count = batch.count();
    if m == 0 || n == 0 || count == 0 {
        return;
    }
    check(batch, m, n, sc);
    let farthest = |strides: &[usize]| batch.sizes.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum::<usize>();
    let inside = |len: usize, strides: &[usize], reach: usize| reach == 0 || farthest(strides) + reach <= len;
    assert!(
        inside(a.len(), &batch.a, reach(m, k, sa))
            && inside(b.len(), &batch.b, reach(k, n, sb))
            && inside(c.len(), &batch.c, reach(m, n, sc)),
        "a matrix is cut off"
    );
    let out = Out(c.as_mut_ptr());
    let one = |i: usize, scratch: &mut [f32]| {
        let (oa, ob, oc) = batch.offsets(i);
        let (a, b) = (&a[oa.min(a.len())..], &b[ob.min(b.len())..]);
        // SAFETY: all entries lie in their slices and those of `c` are distinct, as was checked.
        unsafe { gemm_raw(pool, (m, n, k), a, sa, b, sb, out.at(oc), sc, (false, batch.alike), scratch) }
    };
    if batch.shared((m, n, k), pool.threads()) {
        return (0..count).for_each(|i| one(i, scratch));
    }
    // Small products are taken several at a time.
    let group = (16_384 / (m * n * k.max(1))).clamp(1, count.div_ceil(pool.threads()));
    with_scratch(pool, count.div_ceil(group), scratch, gemm_scratch((m, n, k)), &|g, scratch| {
        (g * group..count.min((g + 1) * group)).for_each(|i| one(i, scratch))
    });
}

/// Entries of the result are disjoint when all their dimensions, by stride, nest.
fn check(batch: &Batched, m: usize, n: usize, sc: Matrix) {
    let mut reach = 0;
    let mut last = 0;
    let count = batch.sizes.len() + 2;
    for _ in 0..count {
        // The dimension of the next larger stride; sorted without allocating.
        let dims = batch.sizes.iter().copied().zip(batch.c.iter().copied()).chain([(m, sc.row), (n, sc.col)]);
        let Some((size, stride)) = dims.filter(|d| d.0 > 1 && d.1 > last).min_by_key(|d| d.1) else { break };
        let twins = batch.sizes.iter().zip(&batch.c).chain([(&m, &sc.row), (&n, &sc.col)]);
        let twins = twins.filter(|d| *d.0 > 1 && *d.1 == stride).count();
        assert!(stride > reach && twins == 1, "result matrices overlap");
        reach += (size - 1) * stride;
        last = stride;
    }
    let zero = |(size, stride): (&usize, &usize)| *size > 1 && *stride == 0;
    let mut dims = batch.sizes.iter().zip(&batch.c).chain([(&m, &sc.row), (&n, &sc.col)]);
    assert!(!dims.any(zero), "result matrices overlap");
}

/// The sums of rows of `n` values.
pub fn diagonal_sum(pool: &Pool, n: usize, x: &[f32], y: &mut [f32]) {
    reduce_f32(pool, Reduction::Sum, (y.len(), n, 1), x, y, &mut []);
}
