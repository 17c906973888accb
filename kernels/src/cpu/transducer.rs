//! Transducer losses, RNN-T (Graves 2012) and TDT (Xu et al. 2023), and their gradients by the joint network's
//! logits; FastEmit (Yu et al. 2021) and clamping as NeMo's `warprnnt_numba` does them.
//!
//! Node `(t, u)` stands before frame `t` with `u` labels said; its logits are tokens (blank among them), for TDT
//! followed by durations, which have a softmax of their own.
//!
//! ```text
//! RNN-T   blank (t, u) -> (t + 1, u)                     label u (t, u) -> (t, u + 1)
//! TDT     blank with duration d > 0 -> (t + d, u)        label with any d -> (t + d, u + 1)
//! ```
//!
//! Tokens of TDT weigh `exp(-sigma)` each. The last blank leads to `(T, U)`. With `alpha` the logarithm of the sum of
//! paths to a node and `beta` that of the paths from it:
//!
//! ```text
//! loss = -alpha(T, U)        w(step) = exp(alpha(from) + log p(step) + beta(to) + loss)
//! gradient by logit v = g (softmax_v sum of w over the node's steps - sum of w over those with v)
//! ```
//!
//! [`nodes`] reads the logits once and keeps a few values of each node; `alpha` and `beta` need no more. [`super::joint`]
//! does the same without logits of all nodes in memory. A thread takes a sequence at a time.

use super::lattice::{NEVER, Wide, check_labels, length, log_add};
use super::loss::row;
use super::math::exp_flushed;
use super::share::{Shared, with_scratch};
use crate::pool::Pool;

/// A batch: logits `[batch, time, labels + 1, tokens + durations]`, labels `[batch, labels]`.
#[derive(Clone, Copy, Debug)]
pub struct Transducer<'a> {
    /// Frames at most.
    pub time: usize,
    /// Labels at most.
    pub labels: usize,
    /// Tokens, blank among them.
    pub tokens: usize,
    /// The token that is no label.
    pub blank: usize,
    /// By how many frames a step may advance: TDT. None: RNN-T.
    pub durations: &'a [usize],
    /// TDT: what is taken off the logarithm of every token's probability.
    pub sigma: f32,
    /// FastEmit: how much more the gradients of labels count.
    pub fastemit: f32,
    /// The largest size of a gradient by a logit, before that of the loss; 0 for none.
    pub clamp: f32,
    /// The labels.
    pub targets: &'a [i32],
    /// How many frames of each sequence count.
    pub frames: &'a [i32],
    /// How many labels of each sequence count.
    pub counts: &'a [i32],
}

/// Of each node: log sums of tokens and of durations, logarithms of blank and of the next label, of each duration.
const TOKENS: usize = 0;
const SPANS: usize = 1;
const BLANK: usize = 2;
const LABEL: usize = 3;
const SPAN: usize = 4;

impl<'a> Transducer<'a> {
    /// Whether labels and blank are tokens.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), String> {
        check_labels(self.targets, self.counts, self.labels, (self.tokens, self.blank))
    }

    /// Values that are kept of a node.
    pub fn kept(&self) -> usize {
        SPAN + self.durations.len()
    }

    /// Logits of a node.
    pub fn wide(&self) -> usize {
        self.tokens + self.durations.len()
    }

    /// Nodes of a sequence.
    pub(super) fn nodes(&self) -> usize {
        self.time * (self.labels + 1)
    }

    pub(super) fn sequence(&self, b: usize) -> Sequence<'a> {
        let labels = &self.targets[b * self.labels..][..length(self.counts[b], self.labels)];
        Sequence { of: *self, frames: length(self.frames[b], self.time), labels }
    }

    /// Steps of a node: by how many frames, the value that holds the duration's logarithm, whether blank may be it,
    /// whether a label may.
    fn steps(&self) -> impl Iterator<Item = (usize, Option<usize>, bool, bool)> + 'a {
        let plain = self.durations.is_empty();
        let rnnt = [(1, None, true, false), (0, None, false, true)].into_iter().filter(move |_| plain);
        rnnt.chain(self.durations.iter().enumerate().map(|(i, d)| (*d, Some(SPAN + i), *d > 0, true)))
    }
}

/// One sequence.
pub(super) struct Sequence<'a> {
    of: Transducer<'a>,
    pub frames: usize,
    pub labels: &'a [i32],
}

/// Logarithms of the sums of paths to and from the nodes of a sequence, and of all paths.
pub(super) struct Paths<'a> {
    pub alpha: Wide<'a>,
    pub beta: Wide<'a>,
    pub total: f64,
}

impl Sequence<'_> {
    fn at(&self, t: usize, u: usize) -> usize {
        t * (self.of.labels + 1) + u
    }

    /// What is kept of a node with these logits.
    pub fn node(&self, u: usize, x: &[f32], to: &mut [f32]) {
        let (tokens, spans) = x.split_at(self.of.tokens);
        let sigma = if spans.is_empty() { 0.0 } else { self.of.sigma };
        to[TOKENS] = row(tokens, false).0;
        to[SPANS] = if spans.is_empty() { 0.0 } else { row(spans, false).0 };
        let log = |x: f32, all: f32| if x == f32::NEG_INFINITY { x } else { x - all };
        to[BLANK] = log(tokens[self.of.blank], to[TOKENS]) - sigma;
        to[LABEL] = self.labels.get(u).map_or(f32::NEG_INFINITY, |l| log(tokens[*l as usize], to[TOKENS]) - sigma);
        for (i, x) in spans.iter().enumerate() {
            to[SPAN + i] = log(*x, to[SPANS]);
        }
    }

    /// The logarithm of a step's probability.
    fn step(&self, nodes: &[f32], at: usize, token: usize, span: Option<usize>) -> f64 {
        let node = &nodes[at * self.of.kept()..][..self.of.kept()];
        node[token] as f64 + span.map_or(0.0, |i| node[i] as f64)
    }

    /// Fills `alpha`, and gives the logarithm of the sum of all paths.
    pub fn forward(&self, nodes: &[f32], alpha: &mut Wide) -> f64 {
        for (t, u) in (0..self.frames).flat_map(|t| (0..=self.labels.len()).map(move |u| (t, u))) {
            let mut v = if t + u == 0 { 0.0 } else { NEVER };
            for (d, span, blank, label) in self.of.steps().filter(|s| s.0 <= t) {
                let from = self.at(t - d, u);
                if blank {
                    v = log_add(v, alpha.get(from) + self.step(nodes, from, BLANK, span));
                }
                if label && u > 0 {
                    v = log_add(v, alpha.get(from - 1) + self.step(nodes, from - 1, LABEL, span));
                }
            }
            alpha.set(self.at(t, u), v);
        }
        let last = self.of.steps().filter(|s| s.2 && s.0 <= self.frames);
        last.fold(NEVER, |all, (d, span, ..)| {
            let from = self.at(self.frames - d, self.labels.len());
            log_add(all, alpha.get(from) + self.step(nodes, from, BLANK, span))
        })
    }

    /// `beta` of the node that a blank (`said` 0) or a label (1) leads to.
    fn after(&self, beta: &Wide, t: usize, u: usize, said: usize) -> f64 {
        match (t < self.frames, u + said <= self.labels.len()) {
            (true, true) => beta.get(self.at(t, u + said)),
            (false, _) if t == self.frames && u == self.labels.len() && said == 0 => 0.0,
            _ => NEVER,
        }
    }

    pub fn backward(&self, nodes: &[f32], beta: &mut Wide) {
        for (t, u) in (0..self.frames).rev().flat_map(|t| (0..=self.labels.len()).rev().map(move |u| (t, u))) {
            let (here, mut v) = (self.at(t, u), NEVER);
            for (d, span, blank, label) in self.of.steps() {
                for (token, said) in [(BLANK, 0), (LABEL, 1)] {
                    if if said == 0 { blank } else { label } {
                        v = log_add(v, self.step(nodes, here, token, span) + self.after(beta, t + d, u, said));
                    }
                }
            }
            beta.set(here, v);
        }
    }

    /// The logits of a node become the gradient by them.
    pub fn turn(&self, (t, u): (usize, usize), nodes: &[f32], paths: &Paths, g: f32, x: &mut [f32]) {
        let here = self.at(t, u);
        let node = &nodes[here * self.of.kept()..][..self.of.kept()];
        let (tokens, spans) = x.split_at_mut(self.of.tokens);
        let (mut blanks, mut said, mut taken) = (0.0, 0.0, [0f64; MOST]);
        for (d, span, blank, label) in self.of.steps() {
            for (token, k) in [(BLANK, 0), (LABEL, 1)] {
                if if k == 0 { blank } else { label } {
                    let into = self.after(&paths.beta, t + d, u, k);
                    let w = paths.alpha.get(here) + self.step(nodes, here, token, span) + into - paths.total;
                    let w = if into == NEVER { 0.0 } else { w.exp() };
                    *(if k == 0 { &mut blanks } else { &mut said }) += w;
                    taken[span.map_or(0, |i| i - SPAN)] += w;
                }
            }
        }
        let bounded = |v: f64| match self.of.clamp {
            most if most > 0.0 => v.clamp(-most as f64, most as f64),
            _ => v,
        };
        let fastemit = self.of.fastemit as f64;
        let all = blanks + said + fastemit * said;
        let single = |token: usize, w: f64, x: &[f32]| {
            let p = (x[token] as f64 - node[TOKENS] as f64).exp();
            g * bounded(p * all - w) as f32
        };
        let of_blank = single(self.of.blank, blanks, tokens);
        let label = self.labels.get(u).map(|l| *l as usize);
        let of_label = label.map(|l| single(l, said * (1.0 + fastemit), tokens));
        turn_row(tokens, node[TOKENS], all as f32, g, self.of.clamp);
        tokens[self.of.blank] = of_blank;
        if let (Some(l), Some(v)) = (label, of_label) {
            tokens[l] = v;
        }
        for (i, x) in spans.iter_mut().enumerate() {
            *x = g * bounded((node[SPAN + i] as f64).exp() * (blanks + said) - taken[i]) as f32;
        }
    }
}

/// Durations at most.
pub const MOST: usize = 16;

/// Logits become `g` times softmax times `all`, bounded.
#[inline(always)]
fn turn_body<const FUSED: bool>(x: &mut [f32], sum: f32, all: f32, g: f32, clamp: f32) {
    let most = if clamp > 0.0 { clamp } else { f32::INFINITY };
    x.iter_mut().for_each(|v| {
        let d = exp_flushed::<FUSED>(*v - sum) * all;
        *v = g * if d > most { most } else { d };
    });
}
crate::dispatch! {
    fn turn_row(x: &mut [f32], sum: f32, all: f32, g: f32, clamp: f32) = fused turn_body;
}

/// What is kept of every node: `[batch, time, labels + 1, kept]`, zeros beyond the lengths.
pub fn nodes(pool: &Pool, op: &Transducer, logits: &[f32], nodes: &mut [f32]) {
    let (each, kept) = (op.nodes(), op.kept());
    pool.rows(nodes, kept, (4096 / op.wide()).max(1), |first, block| {
        for (i, to) in block.chunks_exact_mut(kept).enumerate() {
            let at = first + i;
            let (x, t, u) = (op.sequence(at / each), at % each / (op.labels + 1), at % (op.labels + 1));
            if t < x.frames && u <= x.labels.len() {
                x.node(u, &logits[at * op.wide()..][..op.wide()], to);
            } else {
                to.fill(0.0);
            }
        }
    });
}

/// Scratch floats of [`loss`] for one thread.
pub fn scratch_len(time: usize, labels: usize) -> usize {
    2 * time * (labels + 1)
}

/// The loss of every sequence from what was kept of its nodes; infinity where no path leads to the end.
pub fn loss(pool: &Pool, op: &Transducer, nodes: &[f32], losses: &mut [f32], scratch: &mut [f32]) {
    let (tasks, losses, each) = (losses.len(), Shared::new(losses), op.nodes() * op.kept());
    with_scratch(pool, tasks, scratch, scratch_len(op.time, op.labels), &|b, scratch| {
        let total = op.sequence(b).forward(&nodes[b * each..][..each], &mut Wide::new(scratch));
        // SAFETY: every sequence is taken once.
        unsafe { losses.part(b, 1)[0] = -total as f32 };
    });
}

/// The paths of a sequence, in `scratch` of twice [`scratch_len`] floats.
pub(super) fn paths<'a>(x: &Sequence, nodes: &[f32], scratch: &'a mut [f32]) -> Paths<'a> {
    let (alpha, beta) = scratch.split_at_mut(scratch.len() / 2);
    let (mut alpha, mut beta) = (Wide::new(alpha), Wide::new(beta));
    let total = x.forward(nodes, &mut alpha);
    x.backward(nodes, &mut beta);
    Paths { alpha, beta, total }
}

/// The gradient by the logits from `g`, that by the losses, and what [`nodes`] kept. `scratch` has twice [`scratch_len`]
/// floats for each thread that is to work.
pub fn gradient(
    pool: &Pool,
    op: &Transducer,
    (logits, nodes): (&[f32], &[f32]),
    g: &[f32],
    grad: &mut [f32],
    scratch: &mut [f32],
) {
    let (each, wide) = (op.nodes(), op.wide());
    let grad = Shared::new(grad);
    with_scratch(pool, g.len(), scratch, 2 * scratch_len(op.time, op.labels), &|b, scratch| {
        // SAFETY: every sequence is taken once.
        let grad = unsafe { grad.part(b * each * wide, each * wide) };
        let nodes = &nodes[b * each * op.kept()..][..each * op.kept()];
        let x = op.sequence(b);
        let paths = paths(&x, nodes, scratch);
        for (at, to) in grad.chunks_exact_mut(wide).enumerate() {
            let (t, u) = (at / (op.labels + 1), at % (op.labels + 1));
            if t < x.frames && u <= x.labels.len() && paths.total != NEVER {
                to.copy_from_slice(&logits[(b * each + at) * wide..][..wide]);
                x.turn((t, u), nodes, &paths, g[b], to);
            } else {
                to.fill(0.0);
            }
        }
    });
}
