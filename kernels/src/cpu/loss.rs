//! Cross-entropy per row of logits.

use super::math::{exp_flushed, log};
use super::reduce::largest;
use super::share::Shared;
use super::stream::{self, CHUNK, sum_each, write_each};
use crate::pool::Pool;

/// The settings of cross-entropy.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// Classes: values in a row.
    pub classes: usize,
    /// Targets that are left out.
    pub ignore: Option<i32>,
    /// The part of the target spread over all classes.
    pub smoothing: f32,
    /// The weight of the squared log-sum-exp.
    pub z_loss: f32,
}

impl CrossEntropy {
    /// Whether every target is a class or the ignored index.
    ///
    /// # Errors
    /// The first that is neither.
    pub fn check(&self, targets: &[i32]) -> Result<(), String> {
        let wrong = |t: &&i32| self.ignore != Some(**t) && (**t < 0 || **t as usize >= self.classes);
        match targets.iter().find(wrong) {
            Some(t) => Err(format!(
                "target {t} is not one of {n} classes (0 to {})",
                self.classes as i64 - 1,
                n = self.classes
            )),
            None => Ok(()),
        }
    }

    /// The loss of a row with this log-sum-exp, sum of logits and target's logit.
    #[inline(always)]
    pub(super) fn loss(&self, lse: f32, sum: f32, hit: f32) -> f32 {
        let spread = self.smoothing * sum / self.classes as f32;
        lse - (1.0 - self.smoothing) * hit - spread + self.z_loss * lse * lse
    }
}

/// The logarithm of the sum of exponentials, and the sum.
#[inline(always)]
fn row_body<const FUSED: bool>(x: &[f32], summed: bool) -> (f32, f32) {
    let max = largest(x);
    let total = if summed { sum_each!([x], x) } else { 0.0 };
    if max == f32::NEG_INFINITY {
        return (max, total);
    }
    (max + log::<FUSED>(sum_each!([x], exp_flushed::<FUSED>(x - max))), total)
}
crate::dispatch! {
    pub(super) fn row(x: &[f32], summed: bool) -> (f32, f32) = fused row_body;
}

/// Losses and log-sum-exps, one per row. Targets have passed [`CrossEntropy::check`].
pub fn cross_entropy(
    pool: &Pool,
    op: CrossEntropy,
    logits: &[f32],
    targets: &[i32],
    losses: &mut [f32],
    lses: &mut [f32],
) {
    let n = op.classes;
    let lses = Shared::new(lses);
    pool.rows(losses, 1, (4096 / n.max(1)).max(1), |first, block| {
        // SAFETY: blocks of rows are disjoint.
        let lses = unsafe { lses.part(first, block.len()) };
        for (r, (loss, lse)) in block.iter_mut().zip(lses).enumerate() {
            let at = first + r;
            let x = &logits[at * n..(at + 1) * n];
            let (log_sum, sum) = row(x, op.smoothing != 0.0);
            *lse = log_sum;
            *loss = 0.0;
            if op.ignore != Some(targets[at]) {
                *loss = op.loss(log_sum, sum, x[targets[at] as usize]);
            }
        }
    });
}

/// One row: `hit` is taken from the target's value.
#[inline(always)]
fn grad_body<const FUSED: bool>(
    x: &[f32],
    lse: f32,
    (factor, shift): (f32, f32),
    (target, hit): (usize, f32),
    gx: &mut [f32],
    streams: bool,
) {
    let mut chunk = [0f32; CHUNK];
    // What is streamed cannot be changed soon: the target's neighbours are stored as usual.
    let low = target - target % 16;
    let high = (low + 16).min(gx.len());
    let ranges = if streams { [(0, low), (low, high), (high, gx.len())] } else { [(0, 0), (0, gx.len()), (0, 0)] };
    for (i, (from, to)) in ranges.into_iter().enumerate() {
        let (x, gx) = (&x[from..to], &mut gx[from..to]);
        write_each!(i != 1, &mut chunk, gx, [x], factor * exp_flushed::<FUSED>(x - lse) - shift);
    }
    gx[target] -= hit;
}
crate::dispatch! {
    pub(super) fn grad_row(x: &[f32], lse: f32, scale: (f32, f32), target: (usize, f32), gx: &mut [f32], streams: bool) = fused grad_body;
}

/// The gradient of [`cross_entropy`] by the logits.
pub fn cross_entropy_grad(
    pool: &Pool,
    op: CrossEntropy,
    logits: &[f32],
    targets: &[i32],
    lses: &[f32],
    g: &[f32],
    gx: &mut [f32],
) {
    let n = op.classes;
    if n == 0 {
        return;
    }
    let streams = stream::pays(4 * gx.len());
    pool.rows(gx, n, (4096 / n).max(1), |first, block| {
        for (r, gx) in block.chunks_exact_mut(n).enumerate() {
            let row = first + r;
            if op.ignore == Some(targets[row]) {
                gx.fill(0.0);
                continue;
            }
            let (lse, g) = (lses[row], g[row]);
            let factor = g * (1.0 + 2.0 * op.z_loss * lse);
            let scale = (factor, g * op.smoothing / n as f32);
            let target = (targets[row] as usize, g * (1.0 - op.smoothing));
            grad_row(&logits[row * n..(row + 1) * n], lse, scale, target, gx, streams);
        }
        if streams {
            stream::fence();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_the_losses() {
        for (rows, classes) in [(5, 7), (3, 1000), (1, 1), (40, 33)] {
            let x: Vec<f32> = (0..rows * classes).map(|i| ((i * 37) % 101) as f32 * 0.05 - 2.0).collect();
            let targets: Vec<i32> = (0..rows).map(|i| if i == 2 { -1 } else { (i * 5 % classes) as i32 }).collect();
            let op = CrossEntropy { classes, ignore: Some(-1), smoothing: 0.1, z_loss: 0.01 };
            let (mut losses, mut lses) = (vec![9.0; rows], vec![9.0; rows]);
            let g: Vec<f32> = (0..rows).map(|i| i as f32 + 0.5).collect();
            let mut gx = vec![9.0; x.len()];
            let pool = Pool::new(2);
            cross_entropy(&pool, op, &x, &targets, &mut losses, &mut lses);
            cross_entropy_grad(&pool, op, &x, &targets, &lses, &g, &mut gx);
            for r in 0..rows {
                let x = &x[r * classes..][..classes];
                let lse = x.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
                assert!((f64::from(lses[r]) - lse).abs() < 1e-5);
                let t = usize::try_from(targets[r]).ok();
                let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / classes as f64;
                let loss = t.map_or(0.0, |t| lse - 0.9 * f64::from(x[t]) - 0.1 * mean + 0.01 * lse * lse);
                assert!((f64::from(losses[r]) - loss).abs() < 1e-5);
                for (k, v) in x.iter().enumerate() {
                    let p = (f64::from(*v) - lse).exp();
                    let slope = p * (1.0 + 0.02 * lse) - 0.1 / classes as f64 - if t == Some(k) { 0.9 } else { 0.0 };
                    let slope = if t.is_some() { slope * f64::from(g[r]) } else { 0.0 };
                    assert!((f64::from(gx[r * classes + k]) - slope).abs() < 1e-5 * slope.abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn streamed_gradients_are_the_same() {
        let x: Vec<f32> = (0..1003).map(|i| ((i * 37) % 101) as f32 * 0.05).collect();
        for target in [0, 1, 15, 16, 500, 1002] {
            let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            grad_row(&x, 7.0, (2.0, 0.1), (target, 0.7), &mut a, false);
            grad_row(&x, 7.0, (2.0, 0.1), (target, 0.7), &mut b, true);
            assert_eq!(a, b);
        }
    }
}
