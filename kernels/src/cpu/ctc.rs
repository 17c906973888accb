//! Connectionist temporal classification (Graves et al. 2006): the loss of sequences of frames against
//! labels, and its gradient by the logits.
//!
//! Labels `l_1 .. l_U` make `S = 2 U + 1` states: blank, `l_1`, blank, .. , `l_U`, blank. With `p_t` the softmax
//! of a frame's logits,
//!
//! ```text
//! alpha_t(s) = log p_t(s) + logsum(alpha_{t-1}(s), alpha_{t-1}(s - 1), alpha_{t-1}(s - 2) if s may be skipped to)
//! loss       = -logsum(alpha_T(S - 1), alpha_T(S - 2))
//! gradient   = g (softmax_v - sum over states s of v of exp(alpha_t(s) + beta_t(s) + loss))
//! ```
//!
//! where `beta` is `alpha` from the end, without the frame's own factor, and a label's state is skipped to
//! from the label before if that is another one. A thread takes a sequence at a time; rows of classes are
//! vectorised; only states that a path to the end can pass are visited.

use super::lattice::{NEVER, Wide, check_labels, length, log_add};
use super::loss::{grad_row, row};
use super::share::{Shared, with_scratch};
use crate::pool::Pool;

/// A batch: logits `[batch, time, classes]`, labels `[batch, labels]`.
#[derive(Clone, Copy, Debug)]
pub struct Ctc<'a> {
    /// Frames at most.
    pub time: usize,
    /// Labels at most.
    pub labels: usize,
    /// Classes, blank among them.
    pub classes: usize,
    /// The class that is no label.
    pub blank: usize,
    /// Losses of sequences that their frames cannot hold are 0, not infinity; they have no gradient either way.
    pub zero_infinity: bool,
    /// The labels.
    pub targets: &'a [i32],
    /// How many frames of each sequence count.
    pub frames: &'a [i32],
    /// How many labels of each sequence count.
    pub counts: &'a [i32],
}

/// Scratch floats for one thread.
pub fn scratch_len(time: usize, labels: usize, gradient: bool) -> usize {
    let rows = if gradient { time + 2 } else { 2 };
    time + 2 * rows * (2 * labels + 1)
}

/// One sequence.
struct Sequence<'a> {
    of: &'a Ctc<'a>,
    frames: usize,
    labels: &'a [i32],
    logits: &'a [f32],
    /// The logarithm of the sum of exponentials of each frame.
    sums: &'a [f32],
}

impl Sequence<'_> {
    fn states(&self) -> usize {
        2 * self.labels.len() + 1
    }

    fn class(&self, s: usize) -> usize {
        if s.is_multiple_of(2) { self.of.blank } else { self.labels[s / 2] as usize }
    }

    /// Whether state `s` is also reached from two states before.
    fn skips(&self, s: usize) -> bool {
        s % 2 == 1 && s >= 3 && self.labels[s / 2] != self.labels[s / 2 - 1]
    }

    fn emission(&self, t: usize, s: usize) -> f64 {
        let x = self.logits[t * self.of.classes + self.class(s)];
        if x == f32::NEG_INFINITY { NEVER } else { x as f64 - self.sums[t] as f64 }
    }

    /// States that can be reached by frame `t` and from which the end can be.
    fn live(&self, t: usize) -> (usize, usize) {
        let low = self.states().saturating_sub(2 * (self.frames - t));
        (low, (2 * t + 2).min(self.states()))
    }

    /// Row `t` of `alpha` lies at `t % rows` of rows of `states`; what was there before is overwritten. Gives the
    /// logarithm of the sum of all paths.
    fn forward(&self, alpha: &mut Wide, rows: usize) -> f64 {
        let n = self.states();
        for t in 0..self.frames {
            let (low, high) = self.live(t);
            let before = if t == 0 { (0, 0) } else { self.live(t - 1) };
            let (now, old) = ((t % rows) * n, ((t + rows - 1) % rows) * n);
            for s in low..high {
                let reached = |s: usize, alpha: &Wide| {
                    if (before.0..before.1).contains(&s) { alpha.get(old + s) } else { NEVER }
                };
                let mut v = if t == 0 { 0.0 } else { reached(s, alpha) };
                if t > 0 && s > 0 {
                    v = log_add(v, reached(s - 1, alpha));
                }
                if t > 0 && self.skips(s) {
                    v = log_add(v, reached(s - 2, alpha));
                }
                alpha.set(now + s, v + self.emission(t, s));
            }
        }
        let Some(last) = self.frames.checked_sub(1) else {
            return if n == 1 { 0.0 } else { NEVER };
        };
        let (low, high) = self.live(last);
        (low.max(n.saturating_sub(2))..high).fold(NEVER, |all, s| log_add(all, alpha.get((last % rows) * n + s)))
    }

    /// The gradient by the logits of all frames that count. `alpha` holds every row, `beta` two.
    fn backward(&self, (alpha, total): (&Wide, f64), beta: &mut Wide, g: f32, grad: &mut [f32]) {
        let (n, classes) = (self.states(), self.of.classes);
        for t in (0..self.frames).rev() {
            let (low, high) = self.live(t);
            let after = if t + 1 == self.frames { (0, 0) } else { self.live(t + 1) };
            let (now, old) = ((t % 2) * n, ((t + 1) % 2) * n);
            let to = &mut grad[t * classes..][..classes];
            grad_row(&self.logits[t * classes..][..classes], self.sums[t], (g, 0.0), (0, 0.0), to, false);
            for s in low..high {
                let reached = |s: usize, beta: &Wide| {
                    if (after.0..after.1).contains(&s) { beta.get(old + s) } else { NEVER }
                };
                let mut v = if t + 1 == self.frames { 0.0 } else { reached(s, beta) };
                if t + 1 < self.frames {
                    v = log_add(v, reached(s + 1, beta));
                    if s + 2 < n && self.skips(s + 2) {
                        v = log_add(v, reached(s + 2, beta));
                    }
                }
                beta.set(now + s, v + self.emission(t, s));
                to[self.class(s)] -= g * (alpha.get(t * n + s) + v - total).exp() as f32;
            }
        }
    }
}

impl<'a> Ctc<'a> {
    /// Whether labels and blank are classes.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), String> {
        check_labels(self.targets, self.counts, self.labels, (self.classes, self.blank))
    }

    /// A sequence, whose frames' sums go to `sums`.
    fn sequence(&'a self, b: usize, logits: &'a [f32], sums: &'a mut [f32]) -> Sequence<'a> {
        let frames = length(self.frames[b], self.time);
        let labels = &self.targets[b * self.labels..][..length(self.counts[b], self.labels)];
        let logits = &logits[b * self.time * self.classes..][..frames * self.classes];
        for (sum, x) in sums.iter_mut().zip(logits.chunks_exact(self.classes)) {
            *sum = row(x, false).0;
        }
        Sequence { of: self, frames, labels, logits, sums }
    }
}

/// The loss of every sequence. `scratch` holds [`scratch_len`] floats for each thread that is to work, and sizes
/// have passed [`Ctc::check`].
pub fn loss(pool: &Pool, op: &Ctc, logits: &[f32], losses: &mut [f32], scratch: &mut [f32]) {
    let (tasks, losses) = (losses.len(), Shared::new(losses));
    with_scratch(pool, tasks, scratch, scratch_len(op.time, op.labels, false), &|b, scratch| {
        let (sums, scratch) = scratch.split_at_mut(op.time);
        let total = op.sequence(b, logits, sums).forward(&mut Wide::new(scratch), 2);
        // SAFETY: every sequence is taken once.
        let loss = unsafe { &mut losses.part(b, 1)[0] };
        *loss = if total == NEVER && op.zero_infinity { 0.0 } else { -total as f32 };
    });
}

/// The gradient by the logits from `g`, that by the losses. Scratch as for [`loss`].
pub fn gradient(pool: &Pool, op: &Ctc, logits: &[f32], g: &[f32], grad: &mut [f32], scratch: &mut [f32]) {
    let each = op.time * op.classes;
    let grad = Shared::new(grad);
    with_scratch(pool, g.len(), scratch, scratch_len(op.time, op.labels, true), &|b, scratch| {
        // SAFETY: every sequence is taken once.
        let grad = unsafe { grad.part(b * each, each) };
        let (sums, scratch) = scratch.split_at_mut(op.time);
        let (alpha, beta) = scratch.split_at_mut(2 * op.time * (2 * op.labels + 1));
        let x = op.sequence(b, logits, sums);
        let mut alpha = Wide::new(alpha);
        let total = x.forward(&mut alpha, op.time.max(1));
        if total == NEVER {
            return grad.fill(0.0);
        }
        grad[x.frames * op.classes..].fill(0.0);
        x.backward((&alpha, total), &mut Wide::new(beta), g[b], grad);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame and one label: the loss is that of the label, the gradient softmax less one.
    #[test]
    fn one_frame_is_cross_entropy() {
        let op = Ctc {
            time: 1,
            labels: 1,
            classes: 3,
            blank: 2,
            zero_infinity: false,
            targets: &[1],
            frames: &[1],
            counts: &[1],
        };
        op.check().unwrap();
        let x = [1f32.ln(), 3f32.ln(), 4f32.ln()];
        let (mut losses, mut grad, mut scratch) = ([0.0], [9.0; 3], [0.0; 64]);
        loss(Pool::global(), &op, &x, &mut losses, &mut scratch);
        assert!((losses[0] - (8f32 / 3.0).ln()).abs() < 1e-6);
        gradient(Pool::global(), &op, &x, &[2.0], &mut grad, &mut scratch);
        for (found, expected) in grad.iter().zip([0.25, -1.25, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{grad:?}");
        }
    }

    #[test]
    fn labels_are_classes_other_than_blank() {
        let op = Ctc {
            time: 1,
            labels: 2,
            classes: 3,
            blank: 2,
            zero_infinity: false,
            targets: &[1, 9],
            frames: &[1],
            counts: &[1],
        };
        assert!(op.check().is_ok(), "what does not count may be anything");
        assert!(Ctc { counts: &[2], ..op }.check().unwrap_err().contains("label 9"));
        assert!(Ctc { blank: 1, ..op }.check().is_err());
        assert!(Ctc { blank: 3, ..op }.check().is_err());
    }
}
