//! Transducer losses on the reference device: all logits at once, sums over paths from both ends, as
//! `crate::ops::transducer` says.

use super::ctc::{labels, length, log_sum};
use super::{Eval, RefArray};
use crate::ops::transducer::{Joint, Transducer, TransducerOptions};

const NEVER: f64 = f64::NEG_INFINITY;

/// The logits `[b, t, u + 1, v]`, and the hidden values before and after they are bent.
fn logits(op: &Transducer, cx: &Eval) -> (RefArray, RefArray, RefArray) {
    let Some(joint) = op.joint else {
        let none = RefArray::filled(&[0], 0.0);
        return (cx.inputs[0].clone(), none.clone(), none);
    };
    let [e, p, weight, bias] = [0, 1, 2, 3].map(|i| cx.inputs[i]);
    let (h, v) = (e.sizes[2], weight.sizes[0]);
    let nodes = [e.sizes[0], e.sizes[1], p.sizes[1]];
    let all = |last: usize| [nodes[0], nodes[1], nodes[2], last];
    let straight = RefArray::from_fn(&all(h), |i| e.at(&[i[0], i[1], i[3]]) + p.at(&[i[0], i[2], i[3]]));
    let bend = |x: &f64| if joint == Joint::Tanh { x.tanh() } else { x.max(0.0) };
    let bent = RefArray::new(&all(h), straight.data.iter().map(bend).collect());
    let logits = RefArray::from_fn(&all(v), |i| {
        let row = |j: usize| bent.at(&[i[0], i[1], i[2], j]) * weight.at(&[i[3], j]);
        bias.data[i[3]] + (0..h).map(row).sum::<f64>()
    });
    (logits, straight, bent)
}

/// A step from a node: how many frames and labels on, its logits (a token and maybe a duration), and the logarithm of its
/// probability.
struct Step {
    on: [usize; 2],
    logits: [Option<usize>; 2],
    log: f64,
}

/// A sequence's log-probabilities, tokens before durations, of each node, and its steps.
struct Sequence {
    frames: usize,
    labels: Vec<usize>,
    p: Vec<Vec<Vec<f64>>>,
    steps: Vec<Vec<Vec<Step>>>,
}

fn sequence(o: &TransducerOptions, logits: &RefArray, rest: &[&RefArray], b: usize) -> Result<Sequence, String> {
    let (most, wide) = (logits.sizes[1], logits.sizes[3]);
    let tokens = wide.saturating_sub(o.durations.len());
    let labels = labels(rest, b, tokens, o.blank)?;
    if logits.sizes[2] != rest[0].sizes[1] + 1 {
        return Err(format!("{} nodes of a frame are not one more than {} labels", logits.sizes[2], rest[0].sizes[1]));
    }
    let frames = length(rest[1], b, most);
    let softmax = |x: &[f64]| {
        let all = log_sum(x.iter().copied());
        x.iter().map(|v| if *v == NEVER { NEVER } else { v - all }).collect::<Vec<f64>>()
    };
    let node = |t: usize, u: usize| {
        let x = &logits.data[logits.offset(&[b, t, u, 0])..][..wide];
        [softmax(&x[..tokens]), softmax(&x[tokens..])].concat()
    };
    let all = |t: usize| (0..=labels.len()).map(|u| node(t, u)).collect();
    let p: Vec<Vec<Vec<f64>>> = (0..frames).map(all).collect();
    let steps = |u: usize, p: &Vec<f64>| {
        let said = [(0, Some(o.blank)), (1, labels.get(u).copied())];
        let tokens_of = said.into_iter().filter_map(|(said, token)| Some((said, token?)));
        let mut steps = vec![];
        for (said, token) in tokens_of {
            if o.durations.is_empty() {
                steps.push(Step { on: [1 - said, said], logits: [Some(token), None], log: p[token] });
            }
            for (i, d) in o.durations.iter().enumerate().filter(|(_, d)| said == 1 || **d > 0) {
                let log = p[token] - o.sigma + p[tokens + i];
                steps.push(Step { on: [*d, said], logits: [Some(token), Some(tokens + i)], log });
            }
        }
        steps
    };
    let steps = p.iter().map(|row| row.iter().enumerate().map(|(u, p)| steps(u, p)).collect()).collect();
    Ok(Sequence { frames, labels, p, steps })
}

impl Sequence {
    fn nodes(&self) -> Vec<(usize, usize)> {
        (0..self.frames).flat_map(|t| (0..=self.labels.len()).map(move |u| (t, u))).collect()
    }

    /// The logarithms of sums of paths to each node, and of all.
    fn forward(&self) -> (Vec<Vec<f64>>, f64) {
        let (t, u) = (self.frames, self.labels.len());
        let mut into: Vec<Vec<Vec<f64>>> = vec![vec![vec![]; u + 1]; t];
        let mut ends = vec![];
        let mut alpha = vec![vec![NEVER; u + 1]; t];
        for (t0, u0) in self.nodes() {
            alpha[t0][u0] = if t0 + u0 == 0 { 0.0 } else { log_sum(into[t0][u0].iter().copied()) };
            for step in &self.steps[t0][u0] {
                let (t1, u1) = (t0 + step.on[0], u0 + step.on[1]);
                let v = alpha[t0][u0] + step.log;
                if t1 < t {
                    into[t1][u1].push(v);
                } else if t1 == t && u1 == u && step.on[1] == 0 {
                    ends.push(v);
                }
            }
        }
        (alpha, log_sum(ends))
    }

    /// The logarithm of the sum of paths that go on after a step.
    fn after(&self, beta: &[Vec<f64>], (t, u): (usize, usize), step: &Step) -> f64 {
        let (t, u) = (t + step.on[0], u + step.on[1]);
        match t < self.frames {
            true => beta[t][u],
            false if t == self.frames && u == self.labels.len() && step.on[1] == 0 => 0.0,
            false => NEVER,
        }
    }

    fn backward(&self) -> Vec<Vec<f64>> {
        let mut beta = vec![vec![NEVER; self.labels.len() + 1]; self.frames];
        for (t, u) in self.nodes().into_iter().rev() {
            let on: Vec<f64> = self.steps[t][u].iter().map(|s| s.log + self.after(&beta, (t, u), s)).collect();
            beta[t][u] = log_sum(on);
        }
        beta
    }
}

pub fn transducer(op: &Transducer, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (logits, ..) = logits(op, cx);
    let rest = &cx.inputs[op.sources()..];
    let one = |b| Ok::<_, String>(-sequence(&op.options, &logits, rest, b)?.forward().1);
    let losses = (0..logits.sizes[0]).map(one).collect::<Result<_, _>>()?;
    // Nothing is kept: the gradient begins anew.
    Ok(vec![RefArray::new(&cx.outputs[0], losses), RefArray::filled(&cx.outputs[1], 0.0)])
}

pub fn grad(op: &Transducer, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let (logits, straight, bent) = logits(op, cx);
    let (n, o) = (op.sources(), &op.options);
    let mut gx = RefArray::filled(&logits.sizes, 0.0);
    for b in 0..logits.sizes[0] {
        let s = sequence(o, &logits, &cx.inputs[n..], b)?;
        let ((alpha, total), beta, g) = (s.forward(), s.backward(), cx.inputs[n + 4].data[b]);
        for (t, u) in s.nodes().into_iter().filter(|_| total > NEVER) {
            let at = gx.offset(&[b, t, u, 0]);
            let tokens = logits.sizes[3] - o.durations.len();
            let mut by = vec![0.0; logits.sizes[3]];
            for step in &s.steps[t][u] {
                let w = (alpha[t][u] + step.log + s.after(&beta, (t, u), step) - total).exp();
                // FastEmit counts labels more, where tokens are concerned.
                let more = if step.on[1] == 1 { w * (1.0 + o.fastemit) } else { w };
                for (logit, w) in step.logits.into_iter().zip([more, w]).filter_map(|(l, w)| Some((l?, w))) {
                    let of = if logit < tokens { 0..tokens } else { tokens..logits.sizes[3] };
                    of.for_each(|v| by[v] += w * s.p[t][u][v].exp());
                    by[logit] -= w;
                }
            }
            for (v, by) in by.into_iter().enumerate() {
                gx.data[at + v] = g * if o.clamp > 0.0 { by.clamp(-o.clamp, o.clamp) } else { by };
            }
        }
    }
    let Some(joint) = op.joint else { return Ok(vec![gx]) };
    let weight = cx.inputs[2];
    let mut out: Vec<RefArray> = cx.outputs.iter().map(|sizes| RefArray::filled(sizes, 0.0)).collect();
    gx.data
        .chunks(weight.sizes[0].max(1))
        .for_each(|row| row.iter().zip(&mut out[3].data).for_each(|(g, to)| *to += g));
    super::array::for_each_index(&bent.sizes, |i| {
        let node = gx.offset(&[i[0], i[1], i[2], 0]);
        let gx = &gx.data[node..][..weight.sizes[0]];
        let (x, y) = (straight.at(i), bent.at(i));
        let slope = if joint == Joint::Tanh { 1.0 - y * y } else { (x > 0.0) as u8 as f64 };
        let d = slope * gx.iter().enumerate().map(|(v, g)| g * weight.at(&[v, i[3]])).sum::<f64>();
        let places = [out[0].offset(&[i[0], i[1], i[3]]), out[1].offset(&[i[0], i[2], i[3]])];
        out[0].data[places[0]] += d;
        out[1].data[places[1]] += d;
        for (v, g) in gx.iter().enumerate() {
            let at = out[2].offset(&[v, i[3]]);
            out[2].data[at] += g * y;
        }
    });
    Ok(out)
}
