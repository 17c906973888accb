//! A projection onto classes and the cross-entropy of what it gives, in one: the logits are never
//! whole in memory.
//!
//! A block of rows at a time is projected into scratch memory; each row of it gives its loss and,
//! where gradients are wanted, becomes the gradient by its logits where it stands; two more products
//! take that to the gradient by the hidden rows and add it to the gradient by the weight. Nothing is
//! computed twice: what the loss is multiplied by downstream is known before, as it must be. The
//! construction is that of Liger (Hsu et al. 2024).
//!
//! Every block reads the weight twice and reads and writes its gradient once, so that blocks are
//! to be tall; [`block`] says how tall.

use super::gemm::{self, Columns, Left, Matrix, Product, Right};
use super::loss::{CrossEntropy, row};
use super::math::{exp_flushed, log};
use super::reduce::{Reduction, largest, reduce_f32};
use super::share::Shared;
use super::stream::sum_each;
use crate::pool::Pool;

/// Logits in a block at least: below, the whole is one block.
const LEAST: usize = 2 << 20;

/// The rows of a block. A weight's width of them makes up for reading it; a part of the logits that
/// the caches nearly hold costs nothing.
pub fn block(rows: usize, classes: usize, depth: usize) -> usize {
    let tall = depth.clamp(256, 1024).max(LEAST / classes.max(1));
    rows.div_ceil(rows.div_ceil(tall).max(1))
}

/// Scratch floats of [`linear_cross_entropy`], apart from those that weights in fewer bits ask for.
pub fn scratch_len(rows: usize, classes: usize, depth: usize) -> usize {
    let each = block(rows, classes, depth);
    each * classes + classes + products(rows, classes, depth)
}

/// Scratch floats of the three products, for whole blocks and for what is left.
fn products(rows: usize, classes: usize, depth: usize) -> usize {
    let each = block(rows, classes, depth);
    let of = |m| {
        let sizes = [(m, depth, classes), (m, classes, depth), (classes, m, depth)];
        sizes.map(|(m, k, n)| gemm::scratch_len(m, k, [n], true)).into_iter().max()
    };
    [each, rows.checked_rem(each).unwrap_or(0)].into_iter().filter_map(of).max().unwrap_or(0)
}

/// What is projected, and onto what.
pub struct Head<'a> {
    /// The loss, and the number of classes.
    pub op: CrossEntropy,
    /// Values in a hidden row.
    pub depth: usize,
    /// The hidden rows, one for every target.
    pub hidden: &'a [f32],
    /// Their strides.
    pub at: Matrix,
    /// `depth` rows of `classes` values.
    pub weight: Right<'a>,
    /// A value for every class.
    pub bias: Option<&'a [f32]>,
    /// The targets, which have passed [`CrossEntropy::check`].
    pub targets: &'a [i32],
}

/// Which gradients are wanted, and where they go.
pub struct Gradients<'a> {
    /// What the loss is multiplied by, for every row.
    pub g: &'a [f32],
    /// The weight transposed: `classes` rows of `depth` values.
    pub turned: Right<'a>,
    /// By the hidden rows, one after the other.
    pub hidden: Option<&'a mut [f32]>,
    /// By the weight: `classes` rows of `depth` values, at strides.
    pub weight: Option<(&'a mut [f32], Matrix)>,
    /// By the bias.
    pub bias: Option<&'a mut [f32]>,
}

/// The loss of a row of logits, which becomes the gradient by them.
#[inline(always)]
fn turn_body<const FUSED: bool>(x: &mut [f32], op: CrossEntropy, target: usize, g: f32) -> f32 {
    let max = largest(x);
    let hit = x[target];
    let total = if op.smoothing != 0.0 {
        let x: &[f32] = x;
        sum_each!([x], x)
    } else {
        0.0
    };
    let mut sum = 0f64;
    for block in x.chunks_mut(512) {
        block.iter_mut().for_each(|v| *v = exp_flushed::<FUSED>(*v - max));
        let block: &[f32] = block;
        sum += f64::from(sum_each!([block], block));
    }
    let sum = sum as f32;
    let lse = max + log::<FUSED>(sum);
    let (scale, shift) = (g * (1.0 + 2.0 * op.z_loss * lse) / sum, g * op.smoothing / x.len() as f32);
    x.iter_mut().for_each(|v| *v = scale * *v - shift);
    x[target] -= g * (1.0 - op.smoothing);
    op.loss(lse, total, hit)
}
crate::dispatch! {
    fn turn(x: &mut [f32], op: CrossEntropy, target: usize, g: f32) -> f32 = fused turn_body;
}

/// Losses, one per row, and gradients where they are wanted. Results do not depend on the number of
/// threads.
///
/// # Panics
/// When slices do not have these sizes, or there is less scratch than [`scratch_len`].
pub fn linear_cross_entropy(
    pool: &Pool,
    head: &Head,
    losses: &mut [f32],
    mut gradients: Option<Gradients>,
    scratch: &mut [f32],
) {
    let (rows, classes, depth) = (head.targets.len(), head.op.classes, head.depth);
    let each = block(rows, classes, depth);
    assert!(losses.len() == rows && scratch.len() >= scratch_len(rows, classes, depth), "a head's sizes");
    if let Some(Gradients { weight, bias, .. }) = &mut gradients
        && rows == 0
    {
        weight.iter_mut().for_each(|w| w.0.fill(0.0));
        bias.iter_mut().for_each(|b| b.fill(0.0));
    }
    let (logits, scratch) = scratch.split_at_mut(each * classes);
    let (sums, scratch) = scratch.split_at_mut(classes);
    let mut from = 0;
    while from < rows {
        let m = each.min(rows - from);
        let logits = &mut logits[..m * classes];
        let hidden = &head.hidden[(from * head.at.row).min(head.hidden.len())..];
        let left = [Left { k: depth, data: hidden, at: head.at }];
        let right = [head.weight];
        let results = &mut [Columns::new(classes, &right, logits, Matrix::rows(classes)).bias(head.bias)];
        gemm::product(
            pool,
            &mut Product { m, left: &left, right: results, accumulate: false, alike: false, after: None },
            scratch,
        );

        let range = from..from + m;
        let g = gradients.as_ref().map(|back| &back.g[range.clone()]);
        each_row(pool, head.op, &head.targets[range.clone()], g, logits, &mut losses[range.clone()]);

        let Some(back) = &mut gradients else {
            from += m;
            continue;
        };
        let logits: &[f32] = logits;
        if let Some(to) = &mut back.hidden {
            let (left, right) = ([Left { k: classes, data: logits, at: Matrix::rows(classes) }], [back.turned]);
            let to = &mut to[range.start * depth..range.end * depth];
            let results = &mut [Columns::new(depth, &right, to, Matrix::rows(depth))];
            let x = &mut Product { m, left: &left, right: results, accumulate: false, alike: false, after: None };
            gemm::product(pool, x, scratch);
        }
        if let Some((to, at)) = &mut back.weight {
            let left = [Left { k: m, data: logits, at: Matrix::rows(classes).transposed() }];
            let right = [Right::Plain(hidden, head.at)];
            let results = &mut [Columns::new(depth, &right, to, *at)];
            let x = &mut Product {
                m: classes,
                left: &left,
                right: results,
                accumulate: from > 0,
                alike: false,
                after: None,
            };
            gemm::product(pool, x, scratch);
        }
        if let Some(to) = &mut back.bias {
            reduce_f32(pool, Reduction::Sum, (1, m, classes), logits, sums, &mut []);
            match from {
                0 => to.copy_from_slice(sums),
                _ => to.iter_mut().zip(&*sums).for_each(|(to, sum)| *to += sum),
            }
        }
        from += m;
    }
}

/// The losses of a block of logits, which becomes the gradient by them where `g` is given.
fn each_row(pool: &Pool, op: CrossEntropy, targets: &[i32], g: Option<&[f32]>, logits: &mut [f32], losses: &mut [f32]) {
    let n = op.classes;
    if n == 0 {
        // Every target is left out: there is no class to be one.
        return losses.fill(0.0);
    }
    let losses = Shared::new(losses);
    pool.rows(logits, n, (4096 / n).max(1), |first, block| {
        // SAFETY: blocks of rows are disjoint.
        let losses = unsafe { losses.part(first, block.len() / n) };
        for (r, (x, loss)) in block.chunks_exact_mut(n).zip(losses).enumerate() {
            let (target, g) = (targets[first + r], g.map(|g| g[first + r]));
            *loss = 0.0;
            if op.ignore == Some(target) {
                if g.is_some() {
                    x.fill(0.0);
                }
                continue;
            }
            *loss = match g {
                Some(g) => turn(x, op, target as usize, g),
                None => {
                    let (lse, total) = row(x, op.smoothing != 0.0);
                    op.loss(lse, total, x[target as usize])
                }
            };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::loss::{cross_entropy, cross_entropy_grad};
    use super::*;

    fn wave(n: usize, step: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * step) % 97) as f32 * 0.02 - 1.0).collect()
    }

    /// Against the products and the loss one after the other, over several blocks.
    #[test]
    fn blocks_are_the_whole() {
        for (rows, classes, depth) in [(700, 9000, 20), (513, 5000, 3), (3, 7, 0), (1, 1, 1), (40, 33, 300)] {
            let (x, w, bias) = (wave(rows * depth, 37), wave(classes * depth, 53), wave(classes, 11));
            let targets: Vec<i32> = (0..rows).map(|i| if i % 3 == 2 { -1 } else { (i * 5 % classes) as i32 }).collect();
            let op = CrossEntropy { classes, ignore: Some(-1), smoothing: 0.1, z_loss: 0.01 };
            let g = wave(rows, 29);
            let pool = Pool::new(2);
            let (at, turned) = (Matrix::rows(depth), Matrix::rows(depth).transposed());

            let mut logits: Vec<f32> = (0..rows).flat_map(|_| bias.iter().copied()).collect();
            let mut scratch = vec![0.0; 1 << 22];
            let (c, scratch) = (Matrix::rows(classes), &mut scratch);
            gemm::gemm(&pool, (rows, classes, depth), &x, at, &w, turned, &mut logits, c, true, scratch);
            let (mut losses, mut lses, mut gx) = (vec![9.0; rows], vec![9.0; rows], vec![9.0; rows * classes]);
            cross_entropy(&pool, op, &logits, &targets, &mut losses, &mut lses);
            cross_entropy_grad(&pool, op, &logits, &targets, &lses, &g, &mut gx);
            let (mut by_x, mut by_w) = (vec![9.0; rows * depth], vec![9.0; classes * depth]);
            gemm::gemm(&pool, (rows, depth, classes), &gx, c, &w, at, &mut by_x, at, false, scratch);
            gemm::gemm(&pool, (classes, depth, rows), &gx, c.transposed(), &x, at, &mut by_w, at, false, scratch);

            let head = Head {
                op,
                depth,
                hidden: &x,
                at,
                weight: Right::Plain(&w, turned),
                bias: Some(&bias),
                targets: &targets,
            };
            let mut scratch = vec![0.0; scratch_len(rows, classes, depth)];
            let mut alone = vec![9.0; rows];
            linear_cross_entropy(&pool, &head, &mut alone, None, &mut scratch);
            let (mut own, mut own_x, mut own_w) = (vec![9.0; rows], vec![9.0; by_x.len()], vec![9.0; by_w.len()]);
            let mut own_bias = vec![9.0; classes];
            let back = Gradients {
                g: &g,
                turned: Right::Plain(&w, at),
                hidden: Some(&mut own_x),
                weight: Some((&mut own_w, at)),
                bias: Some(&mut own_bias),
            };
            linear_cross_entropy(&pool, &head, &mut own, Some(back), &mut scratch);
            let by_bias: Vec<f32> = (0..classes).map(|j| (0..rows).map(|i| gx[i * classes + j]).sum()).collect();
            for (found, expected) in
                [(alone, &losses), (own, &losses), (own_x, &by_x), (own_w, &by_w), (own_bias, &by_bias)]
            {
                let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * scale;
                assert!(found.iter().zip(expected).all(near), "{rows} x {classes} x {depth}");
            }
        }
    }

    #[test]
    fn blocks_are_even_and_tall() {
        assert_eq!(block(1024, 1000, 256), 1024);
        assert_eq!(block(8192, 50_000, 768), 745);
        assert_eq!((block(0, 5, 5), block(5, 0, 0), block(1, 1 << 30, 1)), (0, 5, 1));
    }
}
