//! Matrix products whose results go through chains while they are in cache.
//!
//! A product stores each block of its result when all of it is summed; here the thread that has
//! just done so runs a [chain](super::chain) on that block: bias, activation, gate, residual. The
//! chain works in place, its first real result where the product was, unless the product itself is
//! wanted too.

use super::chain::{Chain, Code, Layout, Source, Target};
use super::gemm::{self, Columns, Finished, Left, Matrix, Right};
use crate::pool::Pool;

/// The results of a product at most.
pub const RESULTS: usize = 4;

/// What becomes of a result.
pub enum Then<'a, 't> {
    /// Nothing: it goes here.
    Store(&'a mut [f32]),
    /// A chain.
    Chain {
        /// Its instructions.
        code: &'a Code,
        /// Where its inputs' values lie.
        layouts: &'a [Layout],
        /// Its inputs. That which is the product is replaced.
        sources: &'a mut [Source<'a>],
        /// Which of them is the product.
        product: usize,
        /// Where the product goes if it is wanted too; else it passes through the first target of
        /// real numbers.
        keep: Option<&'a mut [f32]>,
        /// Where the chain's results go.
        targets: &'a mut [Target<'t>],
    },
}

/// One result of a product: its columns, the right sides for all left sides, what follows.
pub struct Fused<'a, 't> {
    /// Its columns.
    pub n: usize,
    /// The right sides.
    pub b: &'a [Right<'a>],
    /// What becomes of it.
    pub then: Then<'a, 't>,
}

/// Computes up to [`RESULTS`] results of `m` rows: see [`gemm::product`], and [`gemm::Product::alike`].
///
/// # Panics
/// As [`gemm::product`] and [`Chain::new`] do; with more results; where a chain has no real target
/// for the product to pass through.
pub fn product<'a>(
    pool: &Pool,
    (m, alike): (usize, bool),
    left: &[Left<'a>],
    results: [Option<Fused<'a, '_>>; RESULTS],
    scratch: &mut [f32],
) {
    let count = results.iter().take_while(|r| r.is_some()).count();
    let mut widths = [0; RESULTS];
    let mut chains: [Option<Chain>; RESULTS] = [const { None }; RESULTS];
    let mut columns: [Columns; RESULTS] = std::array::from_fn(|_| Columns::new(0, &[], &mut [], Matrix::rows(0)));
    for (j, result) in results.into_iter().flatten().enumerate() {
        let Fused { n, b, then } = result;
        widths[j] = n;
        let (c, len) = match then {
            Then::Store(c) => (c.as_mut_ptr(), c.len()),
            Then::Chain { code, layouts, sources, product, keep, targets } => {
                let first = || {
                    let real = targets.iter().position(|t| matches!(t, Target::F32(_)));
                    real.expect("a chain's product passes through a target of real numbers")
                };
                let (place, through) = match keep {
                    Some(c) => (Some((c.as_mut_ptr(), c.len())), None),
                    None => (None, Some(first())),
                };
                sources[product] = match (place, through) {
                    // SAFETY: the chain keeps the address alone, and reads what is finished.
                    (Some((c, len)), _) => Source::F32(unsafe { std::slice::from_raw_parts(c, len) }),
                    (None, k) => Source::Out(k.unwrap_or(0)),
                };
                let chain = chains[j].insert(Chain::new(code, layouts, sources, targets));
                match (place, through) {
                    (Some(place), _) => place,
                    (None, k) => chain.target(k.unwrap_or(0)),
                }
            }
        };
        // SAFETY: the place is borrowed mutably for as long as this call takes, and chains touch
        // blocks of it only when they are finished.
        columns[j] = unsafe { Columns::at(n, b, c, len, Matrix::rows(n)) };
    }
    let after = |block: &mut Finished| {
        if let Some(chain) = &chains[block.result] {
            // SAFETY: blocks of a result are disjoint, and the targets are borrowed mutably.
            unsafe { chain.tile(block.rows.clone(), block.columns.clone(), widths[block.result]) };
        }
    };
    let some = chains.iter().any(Option::is_some);
    let right = &mut columns[..count];
    let after: Option<&gemm::After> = if some { Some(&after) } else { None };
    gemm::product(pool, &mut gemm::Product { m, left, right, accumulate: false, alike, after }, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::chain::{Arg, BinaryOp, Ins, Kind};

    /// `(x + bias) * gate`, and with a second result `x + bias`.
    fn code(both: bool) -> Code {
        let mut code = Code::new(&[Kind::F32; 3]);
        code.push(Ins::BinF(BinaryOp::Add, 0, Arg::input(0), Arg::input(1)));
        code.push(Ins::BinF(BinaryOp::Mul, 1, Arg::float(0), Arg::input(2)));
        let second = (Arg::float(0), Kind::F32);
        let results = [(Arg::float(1), Kind::F32), second];
        code.finish(&results[..1 + both as usize]).expect("it is short")
    }

    #[test]
    fn chains_see_every_value_of_the_product_once() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for (m, n, k) in [(1, 1, 1), (3, 5, 2), (130, 70, 600), (65, 200, 3), (40, 300, 40)] {
                let value = |i: usize| ((i * 7919) % 13) as f32 - 6.0;
                let a: Vec<f32> = (0..m * k).map(value).collect();
                let b: Vec<f32> = (0..k * n).map(|i| value(i + 3)).collect();
                let (bias, gate): (Vec<f32>, Vec<f32>) = ((0..n).map(value).collect(), (0..m * n).map(value).collect());
                let sum = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f32>();
                let left = [Left { k, data: &a, at: Matrix::rows(k) }];
                let right = [Right::Plain(&b, Matrix::rows(n))];
                let mut scratch = vec![0.0; gemm::scratch_len(m, k, [n, n, n], true)];
                let layout = |s: [usize; 2]| Layout::new(&[m, n], &s, 0);
                let layouts = [layout([n, 1]), layout([0, 1]), layout([n, 1])];
                let (one, two) = (code(false), code(true));
                let mut out: [Vec<f32>; 5] = std::array::from_fn(|_| vec![f32::NAN; m * n]);
                let [plain, single, kept, first, second] = &mut out;
                let mut targets = [Target::F32(single)];
                let mut more = [Target::F32(first), Target::F32(second)];
                let inputs = [Source::Out(0), Source::F32(&bias), Source::F32(&gate)];
                let (mut s1, mut s2) = (inputs, inputs);
                let then = |code, sources, keep, targets| Then::Chain {
                    code,
                    layouts: &layouts,
                    sources,
                    product: 0,
                    keep,
                    targets,
                };
                let results = [
                    Some(Fused { n, b: &right, then: Then::Store(plain) }),
                    Some(Fused { n, b: &right, then: then(&one, &mut s1, None, &mut targets) }),
                    Some(Fused { n, b: &right, then: then(&two, &mut s2, Some(kept), &mut more) }),
                    None,
                ];
                product(&pool, (m, false), &left, results, &mut scratch);
                for i in 0..m {
                    for j in 0..n {
                        let (x, at) = (sum(i, j), i * n + j);
                        let y = x + bias[j];
                        assert_eq!(out.each_ref().map(|o| o[at]), [x, y * gate[at], x, y * gate[at], y]);
                    }
                }
            }
        }
    }
}
