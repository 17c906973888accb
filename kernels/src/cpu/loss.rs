//! Cross-entropy per row of logits.

use super::math::plain::exp;
use super::reduce::{largest, sum};
use super::share::Shared;
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
}

#[inline(always)]
fn log_sum_exp_body(x: &[f32]) -> f32 {
    let max = largest(x);
    if max == f32::NEG_INFINITY {
        return max;
    }
    let mut total = 0.0;
    for x in x.chunks(512) {
        let mut lanes = [0f32; 16];
        let chunks = x.chunks_exact(16);
        let rest: f32 = chunks.remainder().iter().map(|x| exp(x - max)).sum();
        for c in chunks {
            for i in 0..16 {
                lanes[i] += exp(c[i] - max);
            }
        }
        total += sum(&lanes) + rest;
    }
    max + total.ln()
}
crate::dispatch! {
    fn log_sum_exp(x: &[f32]) -> f32 = log_sum_exp_body;
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
            let row = first + r;
            let x = &logits[row * n..(row + 1) * n];
            *lse = log_sum_exp(x);
            *loss = 0.0;
            if op.ignore != Some(targets[row]) {
                let spread = if op.smoothing == 0.0 { 0.0 } else { op.smoothing * sum(x) / n as f32 };
                let hit = x[targets[row] as usize];
                *loss = *lse - (1.0 - op.smoothing) * hit - spread + op.z_loss * *lse * *lse;
            }
        }
    });
}

#[inline(always)]
fn grad_body(x: &[f32], lse: f32, factor: f32, shift: f32, gx: &mut [f32]) {
    gx.iter_mut().zip(x).for_each(|(g, x)| *g = factor * exp(x - lse) - shift);
}
crate::dispatch! {
    fn grad_row(x: &[f32], lse: f32, factor: f32, shift: f32, gx: &mut [f32]) = grad_body;
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
    pool.rows(gx, n, (4096 / n).max(1), |first, block| {
        for (r, gx) in block.chunks_exact_mut(n).enumerate() {
            let row = first + r;
            if op.ignore == Some(targets[row]) {
                gx.fill(0.0);
                continue;
            }
            let (lse, g) = (lses[row], g[row]);
            let factor = g * (1.0 + 2.0 * op.z_loss * lse);
            grad_row(&logits[row * n..(row + 1) * n], lse, factor, g * op.smoothing / n as f32, gx);
            gx[targets[row] as usize] -= g * (1.0 - op.smoothing);
        }
    });
}
