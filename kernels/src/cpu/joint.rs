//! A transducer's joint network together with its loss: logits of all nodes, `batch * time * labels * tokens` values, are
//! never in memory at once.
//!
//! ```text
//! h[t, u] = act(e[t] + p[u])      logits = W h + bias         act: relu or tanh
//! dh = (dl W) act'(h)      de[t] = sum over u of dh      dp[u] = sum over t of dh      dW = sum of dl h^T
//! ```
//!
//! Sequences follow one another, and in each blocks of frames: hidden values and logits of a block are made and what the
//! loss needs of each node is kept ([`super::transducer`]); for the gradient they are made once more, the logits become
//! their gradient where they stand, and three products follow. Only nodes that count are visited. Threads
//! share the products and the rows of a block.

use super::gemm::{self, Columns, Left, Matrix, Product, Right};
use super::lattice::{NEVER, Wide};
use super::math::tanh;
use super::reduce::{Reduction, reduce_f32};
use super::share::Shared;
use super::transducer::{Paths, Sequence, Transducer, paths, scratch_len as path_len};
use crate::pool::Pool;

/// Logits in a block at least: below, a sequence is one block. Tests have small ones.
const LEAST: usize = if cfg!(test) { 1 << 12 } else { 1 << 20 };

/// What the joint network reads.
#[derive(Clone, Copy, Debug)]
pub struct Joint<'a> {
    /// Hidden values of a node.
    pub width: usize,
    /// Hyperbolic tangents, not rectified.
    pub tanh: bool,
    /// The encoder's part, `[batch, time, width]`.
    pub e: &'a [f32],
    /// The predictor's part, `[batch, labels + 1, width]`.
    pub p: &'a [f32],
    /// `[tokens + durations, width]`
    pub weight: &'a [f32],
    /// `[tokens + durations]`
    pub bias: &'a [f32],
}

/// Gradients by what the joint network reads, in the same shapes.
pub struct Gradients<'a> {
    /// By the encoder's part.
    pub e: &'a mut [f32],
    /// By the predictor's part.
    pub p: &'a mut [f32],
    /// By the weight.
    pub weight: &'a mut [f32],
    /// By the bias.
    pub bias: &'a mut [f32],
}

/// Sizes that scratch memory depends on.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Sequences.
    pub batch: usize,
    /// Frames at most.
    pub time: usize,
    /// Labels at most.
    pub labels: usize,
    /// Logits of a node.
    pub wide: usize,
    /// Hidden values of a node.
    pub width: usize,
}

impl Sizes {
    /// Nodes in a block at most.
    fn rows(&self) -> usize {
        (LEAST / self.wide.max(1)).max(self.labels + 1).min(self.time * (self.labels + 1))
    }

    /// Floats of a block: hidden values, logits, gradients by hidden values, and of the products.
    fn block(&self, backward: bool) -> [usize; 4] {
        let (rows, k, n) = (self.rows(), self.width, self.wide);
        let of = |m| match backward {
            false => gemm::scratch_len(m, k, [n], true),
            true => [(m, k, n), (m, n, k), (n, m, k)]
                .map(|(m, k, n)| gemm::scratch_len(m, k, [n], true))
                .into_iter()
                .max()
                .unwrap_or(0),
        };
        let products = (0..=rows).map(of).max().unwrap_or(0);
        [rows * k, rows * n, if backward { rows * k + n } else { 0 }, products]
    }

    /// Scratch floats of [`loss`], with so many threads.
    pub fn loss_scratch(&self, threads: usize) -> usize {
        self.block(false).iter().sum::<usize>().max(threads * path_len(self.time, self.labels))
    }

    /// Scratch floats of [`gradient`].
    pub fn gradient_scratch(&self) -> usize {
        self.block(true).iter().sum::<usize>() + self.batch * (2 * path_len(self.time, self.labels) + 2)
    }
}

#[inline(always)]
fn hidden_body<const FUSED: bool>(e: &[f32], p: &[f32], bent: bool, h: &mut [f32]) {
    if bent {
        h.iter_mut().zip(e).zip(p).for_each(|((h, e), p)| *h = tanh::<FUSED>(e + p));
    } else {
        h.iter_mut().zip(e).zip(p).for_each(|((h, e), p)| *h = if e + p < 0.0 { 0.0 } else { e + p });
    }
}
crate::dispatch! {
    fn hidden_row(e: &[f32], p: &[f32], bent: bool, h: &mut [f32]) = fused hidden_body;
}

impl Joint<'_> {
    /// Hidden values and logits of the nodes of frames `from ..` of a sequence, as many as `logits` holds.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        pool: &Pool,
        op: &Transducer,
        (b, many): (usize, usize),
        from: usize,
        hidden: &mut [f32],
        logits: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (k, n) = (self.width, op.wide());
        let rows = logits.len() / n;
        let (e, p) = (&self.e[(b * op.time + from) * k..], &self.p[b * (op.labels + 1) * k..]);
        if k > 0 {
            pool.rows(hidden, k, (4096 / k).max(1), |first, block| {
                for (i, h) in block.chunks_exact_mut(k).enumerate() {
                    let (t, u) = ((first + i) / many, (first + i) % many);
                    hidden_row(&e[t * k..][..k], &p[u * k..][..k], self.tanh, h);
                }
            });
        }
        let left = [Left { k, data: hidden, at: Matrix::rows(k) }];
        let right = [Right::Plain(self.weight, Matrix::rows(k).transposed())];
        let results = &mut [Columns::new(n, &right, logits, Matrix::rows(n)).bias(Some(self.bias))];
        gemm::product(
            pool,
            &mut Product { m: rows, left: &left, right: results, accumulate: false, alike: false, after: None },
            scratch,
        );
    }
}

/// Blocks of a sequence: frames `from .. to`.
fn blocks(x: &Sequence, s: &Sizes) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (frames, each) = (x.frames, (s.rows() / (x.labels.len() + 1)).max(1));
    (0..frames).step_by(each).map(move |from| (from, (from + each).min(frames)))
}

fn sizes(op: &Transducer, joint: &Joint, batch: usize) -> Sizes {
    Sizes { batch, time: op.time, labels: op.labels, wide: op.wide(), width: joint.width }
}

/// What is kept of every node, and the losses. `scratch` has [`Sizes::loss_scratch`] floats.
pub fn loss(pool: &Pool, op: &Transducer, joint: &Joint, nodes: &mut [f32], losses: &mut [f32], scratch: &mut [f32]) {
    let s = sizes(op, joint, losses.len());
    let ([hidden, logits, ..], kept) = (s.block(false), op.kept());
    nodes.fill(0.0);
    for b in 0..losses.len() {
        let x = op.sequence(b);
        let many = x.labels.len() + 1;
        for (from, to) in blocks(&x, &s) {
            let rows = (to - from) * many;
            let (hidden, rest) = scratch.split_at_mut(hidden);
            let (logits, rest) = rest.split_at_mut(logits);
            let (hidden, logits) = (&mut hidden[..rows * s.width], &mut logits[..rows * s.wide]);
            joint.block(pool, op, (b, many), from, hidden, logits, rest);
            let first = (b * op.time + from) * (op.labels + 1) * kept;
            let nodes = &mut nodes[first..][..(to - from) * (op.labels + 1) * kept];
            let logits: &[f32] = logits;
            pool.rows(nodes, (op.labels + 1) * kept, 1, |first, block| {
                for (i, frame) in block.chunks_exact_mut((op.labels + 1) * kept).enumerate() {
                    for (u, to) in frame.chunks_exact_mut(kept).take(many).enumerate() {
                        x.node(u, &logits[((first + i) * many + u) * s.wide..][..s.wide], to);
                    }
                }
            });
        }
    }
    super::transducer::loss(pool, op, nodes, losses, scratch);
}

/// The gradients from `g`, that by the losses, and what [`loss`] kept. `scratch` has [`Sizes::gradient_scratch`] floats.
pub fn gradient(
    pool: &Pool,
    op: &Transducer,
    joint: &Joint,
    nodes: &[f32],
    g: &[f32],
    mut out: Gradients,
    scratch: &mut [f32],
) {
    let s = sizes(op, joint, g.len());
    let (kept, length) = (op.nodes() * op.kept(), 2 * path_len(op.time, op.labels));
    let nodes = |b: usize| &nodes[b * kept..][..kept];
    let (room, scratch) = scratch.split_at_mut(g.len() * (length + 2));
    let shared = Shared::new(room);
    // The paths of all sequences first, as these are the work of one thread each.
    pool.run(g.len(), &|b| {
        // SAFETY: every sequence is taken once.
        let room = unsafe { shared.part(b * (length + 2), length + 2) };
        let (room, total) = room.split_at_mut(length);
        Wide::new(total).set(0, paths(&op.sequence(b), nodes(b), room).total);
    });
    [&mut *out.e, &mut *out.p, &mut *out.weight, &mut *out.bias].into_iter().for_each(|to| to.fill(0.0));
    for (b, room) in room.chunks_exact_mut(length + 2).enumerate() {
        let (alpha, rest) = room.split_at_mut(length / 2);
        let (beta, total) = rest.split_at_mut(length / 2);
        let total = Wide::new(total).get(0);
        if total != NEVER {
            let paths = Paths { alpha: Wide::new(alpha), beta: Wide::new(beta), total };
            back(pool, op, joint, (b, &paths), (nodes(b), g[b]), &s, &mut out, scratch);
        }
    }
}

/// Adds the gradients from a sequence.
#[allow(clippy::too_many_arguments)]
fn back(
    pool: &Pool,
    op: &Transducer,
    joint: &Joint,
    (b, paths): (usize, &Paths),
    (nodes, g): (&[f32], f32),
    s: &Sizes,
    out: &mut Gradients,
    scratch: &mut [f32],
) {
    let (x, [hidden, logits, by_hidden, _], (k, n)) = (op.sequence(b), s.block(true), (s.width, s.wide));
    let many = x.labels.len() + 1;
    let (hidden, rest) = scratch.split_at_mut(hidden);
    let (logits, rest) = rest.split_at_mut(logits);
    let (by_hidden, scratch) = rest.split_at_mut(by_hidden);
    let (sums, by_hidden) = by_hidden.split_at_mut(n);
    for (from, to) in blocks(&x, s) {
        let rows = (to - from) * many;
        let (h, logits, dh) = (&mut hidden[..rows * k], &mut logits[..rows * n], &mut by_hidden[..rows * k]);
        joint.block(pool, op, (b, many), from, h, logits, scratch);
        pool.rows(logits, n, (4096 / n).max(1), |first, block| {
            for (i, row) in block.chunks_exact_mut(n).enumerate() {
                x.turn((from + (first + i) / many, (first + i) % many), nodes, paths, g, row);
            }
        });
        // The logits are gradients now.
        let (h, logits, (at_h, at_l)) = (&*h, &*logits, (Matrix::rows(k), Matrix::rows(n)));
        gemm::gemm(pool, (n, k, rows), logits, at_l.transposed(), h, at_h, out.weight, at_h, true, scratch);
        reduce_f32(pool, Reduction::Sum, (1, rows, n), logits, sums, &mut []);
        out.bias.iter_mut().zip(&*sums).for_each(|(to, sum)| *to += sum);
        gemm::gemm(pool, (rows, k, n), logits, at_l, joint.weight, at_h, dh, at_h, false, scratch);
        pool.rows(dh, k, (4096 / k.max(1)).max(1), |first, block| {
            let slope = |h: f32| if joint.tanh { 1.0 - h * h } else { (h > 0.0) as u8 as f32 };
            block.iter_mut().zip(&h[first * k..]).for_each(|(d, h)| *d *= slope(*h));
        });
        let dh: &[f32] = dh;
        let row = |t: usize, u: usize| &dh[(t * many + u) * k..][..k];
        let add = |to: &mut [f32], d: &[f32]| to.iter_mut().zip(d).for_each(|(to, d)| *to += d);
        pool.rows(&mut out.e[(b * op.time + from) * k..][..(to - from) * k], k, 1, |first, block| {
            for (i, to) in block.chunks_exact_mut(k).enumerate() {
                (0..many).for_each(|u| add(to, row(first + i, u)));
            }
        });
        pool.rows(&mut out.p[b * (op.labels + 1) * k..][..many * k], k, 1, |first, block| {
            for (i, by) in block.chunks_exact_mut(k).enumerate() {
                (0..to - from).for_each(|t| add(by, row(t, first + i)));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::transducer;
    use super::*;

    fn wave(n: usize, step: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * step) % 97) as f32 * 0.02 - 1.0).collect()
    }

    /// Against all logits at once, in several blocks: few frames have more logits than one.
    #[test]
    fn blocks_are_the_whole() {
        let (batch, time, labels, width, tokens, pool) = (2, 9, 3, 5, 300, Pool::new(2));
        for (durations, bent) in [(&[][..], false), (&[0, 2, 1], true)] {
            let op = Transducer {
                time,
                labels,
                tokens,
                blank: 7,
                durations,
                sigma: 0.1,
                fastemit: 0.01,
                clamp: 0.0,
                targets: &[1, 1, 299, 5, -4, -4],
                frames: &[9, 4],
                counts: &[3, 1],
            };
            let n = op.wide();
            let (e, p) = (wave(batch * time * width, 37), wave(batch * (labels + 1) * width, 53));
            let (weight, bias, g) = (wave(n * width, 29), wave(n, 11), [1.0, -0.5]);
            let joint = Joint { width, tanh: bent, e: &e, p: &p, weight: &weight, bias: &bias };
            let s = sizes(&op, &joint, batch);
            assert!(blocks(&op.sequence(0), &s).count() > 2);
            let (mut kept, mut losses) = (vec![9.0; batch * op.nodes() * op.kept()], [9.0; 2]);
            loss(&pool, &op, &joint, &mut kept, &mut losses, &mut vec![9.0; s.loss_scratch(2)]);
            let mut found = [vec![9.0; e.len()], vec![9.0; p.len()], vec![9.0; weight.len()], vec![9.0; n]];
            let [by_e, by_p, by_weight, by_bias] = &mut found;
            let out = Gradients { e: by_e, p: by_p, weight: by_weight, bias: by_bias };
            gradient(&pool, &op, &joint, &kept, &g, out, &mut vec![9.0; s.gradient_scratch()]);

            let many = labels + 1;
            let at = |i: usize| (i / (time * many), i / many % time, i % many);
            let h = |i: usize, j: usize| {
                let (b, t, u) = at(i);
                let x = e[(b * time + t) * width + j] + p[(b * many + u) * width + j];
                if bent { x.tanh() } else { x.max(0.0) }
            };
            let each = batch * time * many;
            let logit = |i: usize, v: usize| bias[v] + (0..width).map(|j| h(i, j) * weight[v * width + j]).sum::<f32>();
            let logits: Vec<f32> =
                (0..each).flat_map(|i| (0..n).map(move |v| (i, v))).map(|(i, v)| logit(i, v)).collect();
            let (mut nodes, mut plain) = (vec![0.0; each * op.kept()], [0.0; 2]);
            let mut scratch = vec![0.0; 4 * transducer::scratch_len(time, labels)];
            transducer::nodes(&pool, &op, &logits, &mut nodes);
            transducer::loss(&pool, &op, &nodes, &mut plain, &mut scratch);
            let mut dl = vec![9.0; logits.len()];
            transducer::gradient(&pool, &op, (&logits, &nodes), &g, &mut dl, &mut scratch);
            let mut expected = found.clone().map(|v| vec![0f32; v.len()]);
            for i in 0..each {
                let (b, t, u) = at(i);
                for j in 0..width {
                    let d = (0..n).map(|v| dl[i * n + v] as f64 * weight[v * width + j] as f64).sum::<f64>() as f32;
                    let d = d * if bent { 1.0 - h(i, j) * h(i, j) } else { (h(i, j) > 0.0) as u8 as f32 };
                    expected[0][(b * time + t) * width + j] += d;
                    expected[1][(b * many + u) * width + j] += d;
                    (0..n).for_each(|v| expected[2][v * width + j] += dl[i * n + v] * h(i, j));
                }
                (0..n).for_each(|v| expected[3][v] += dl[i * n + v]);
            }
            let pairs = found.iter().zip(&expected).map(|(a, b)| (&a[..], &b[..]));
            for (found, expected) in pairs.chain([(&losses[..], &plain[..])]) {
                let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
                let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 2e-5 * scale, "{durations:?}: {worst} of {scale}");
            }
        }
    }
}
