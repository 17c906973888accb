//! Recurrent operations on the reference device, one sequence after the other, as the formulas
//! in `crate::ops::recurrent` say.

use super::{Eval, RefArray};
use crate::ops::recurrent::{Direction, Gru, GruGrad, Lstm, LstmGrad};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Sizes of a recurrent operation, and the lengths of its sequences.
struct Plan {
    batch: usize,
    time: usize,
    hidden: usize,
    lengths: Vec<usize>,
    direction: Direction,
}

impl Plan {
    /// `steps` is a value `[batch, time, ..]`.
    fn new(steps: &RefArray, weight: &RefArray, lengths: Option<&&RefArray>, direction: Direction) -> Plan {
        let (batch, time) = (steps.sizes[0], steps.sizes[1]);
        let length = |b: usize| lengths.map_or(time, |l| (l.data[b].max(0.0) as usize).min(time));
        Plan { batch, time, hidden: weight.sizes[1], lengths: (0..batch).map(length).collect(), direction }
    }

    /// The steps of sequence `b` that count, in the order in which they are taken.
    fn steps(&self, b: usize) -> Vec<usize> {
        (0..self.time).map(|i| self.direction.step(i, self.time)).filter(|t| *t < self.lengths[b]).collect()
    }

    /// Where step `t` of sequence `b` begins in a value with `n` numbers per hidden one.
    fn at(&self, n: usize, b: usize, t: usize) -> usize {
        (b * self.time + t) * n * self.hidden
    }

    /// The state before step `t`: a row of `steps` or of the initial state.
    fn before<'a>(&self, b: usize, t: usize, steps: &'a RefArray, initial: &'a RefArray) -> &'a [f64] {
        let (data, from) = match self.direction.before(t, self.lengths[b]) {
            Some(t) => (&steps.data, self.at(1, b, t)),
            None => (&initial.data, b * self.hidden),
        };
        &data[from..from + self.hidden]
    }

    fn state<'a>(&self, b: usize, state: &'a RefArray) -> &'a [f64] {
        &state.data[b * self.hidden..(b + 1) * self.hidden]
    }
}

/// `W h`, or `h^T W` where `transposed`.
fn product(w: &RefArray, h: &[f64], transposed: bool) -> Vec<f64> {
    let (rows, columns) = (w.sizes[0], w.sizes[1]);
    match transposed {
        false => (0..rows).map(|r| (0..columns).map(|c| w.data[r * columns + c] * h[c]).sum()).collect(),
        true => (0..columns).map(|c| (0..rows).map(|r| w.data[r * columns + c] * h[r]).sum()).collect(),
    }
}

/// `out += a b^T`
fn outer(out: &mut RefArray, a: &[f64], b: &[f64]) {
    let columns = out.sizes[1];
    for (r, a) in a.iter().enumerate() {
        for (c, b) in b.iter().enumerate() {
            out.data[r * columns + c] += a * b;
        }
    }
}

fn zeros(cx: &Eval) -> Vec<RefArray> {
    cx.outputs.iter().map(|sizes| RefArray::filled(sizes, 0.0)).collect()
}

pub fn lstm(op: &Lstm, cx: &Eval) -> Vec<RefArray> {
    let (gates, weight, h0, c0) = (cx.inputs[0], cx.inputs[1], cx.inputs[2], cx.inputs[3]);
    let plan = Plan::new(gates, weight, cx.inputs.get(4), op.direction);
    let n = plan.hidden;
    let mut out = zeros(cx);
    for b in 0..plan.batch {
        let (mut h, mut c) = (plan.state(b, h0).to_vec(), plan.state(b, c0).to_vec());
        for t in plan.steps(b) {
            let from_state = product(weight, &h, false);
            let (wide, narrow) = (plan.at(4, b, t), plan.at(1, b, t));
            for j in 0..n {
                let a = |k: usize| gates.data[wide + k * n + j] + from_state[k * n + j];
                let (i, f, g, o) = (sigmoid(a(0)), sigmoid(a(1)), a(2).tanh(), sigmoid(a(3)));
                c[j] = f * c[j] + i * g;
                h[j] = o * c[j].tanh();
                for (k, v) in [i, f, g, o].into_iter().enumerate() {
                    out[3].data[wide + k * n + j] = v;
                }
                out[0].data[narrow + j] = h[j];
                out[4].data[narrow + j] = c[j];
            }
        }
        out[1].data[b * n..(b + 1) * n].copy_from_slice(&h);
        out[2].data[b * n..(b + 1) * n].copy_from_slice(&c);
    }
    out
}

pub fn lstm_grad(op: &LstmGrad, cx: &Eval) -> Vec<RefArray> {
    let [weight, h0, c0, y, gates, cells, dy, dh_last, dc_last] =
        *cx.inputs.first_chunk().expect("the shape rule has counted the inputs");
    let plan = Plan::new(y, weight, cx.inputs.get(9), op.direction);
    let n = plan.hidden;
    let mut out = zeros(cx);
    for b in 0..plan.batch {
        let (mut dh, mut dc) = (plan.state(b, dh_last).to_vec(), plan.state(b, dc_last).to_vec());
        for t in plan.steps(b).into_iter().rev() {
            let (wide, narrow) = (plan.at(4, b, t), plan.at(1, b, t));
            let h_before = plan.before(b, t, y, h0);
            let c_before = plan.before(b, t, cells, c0);
            let mut da = vec![0.0; 4 * n];
            for j in 0..n {
                let gate = |k: usize| gates.data[wide + k * n + j];
                let (i, f, g, o) = (gate(0), gate(1), gate(2), gate(3));
                let tanh = cells.data[narrow + j].tanh();
                let dh = dh[j] + dy.data[narrow + j];
                dc[j] += dh * o * (1.0 - tanh * tanh);
                da[j] = dc[j] * g * i * (1.0 - i);
                da[n + j] = dc[j] * c_before[j] * f * (1.0 - f);
                da[2 * n + j] = dc[j] * i * (1.0 - g * g);
                da[3 * n + j] = dh * tanh * o * (1.0 - o);
                dc[j] *= f;
            }
            dh = product(weight, &da, true);
            outer(&mut out[1], &da, h_before);
            out[0].data[wide..wide + 4 * n].copy_from_slice(&da);
        }
        out[2].data[b * n..(b + 1) * n].copy_from_slice(&dh);
        out[3].data[b * n..(b + 1) * n].copy_from_slice(&dc);
    }
    out
}

pub fn gru(op: &Gru, cx: &Eval) -> Vec<RefArray> {
    let (gates, weight, bias, h0) = (cx.inputs[0], cx.inputs[1], cx.inputs[2], cx.inputs[3]);
    let plan = Plan::new(gates, weight, cx.inputs.get(4), op.direction);
    let n = plan.hidden;
    let mut out = zeros(cx);
    for b in 0..plan.batch {
        let mut h = plan.state(b, h0).to_vec();
        for t in plan.steps(b) {
            let from_state = product(weight, &h, false);
            let (wide, saved, narrow) = (plan.at(3, b, t), plan.at(4, b, t), plan.at(1, b, t));
            for j in 0..n {
                let x = |k: usize| gates.data[wide + k * n + j];
                let s = |k: usize| from_state[k * n + j] + bias.data[k * n + j];
                let (r, z, q) = (sigmoid(x(0) + s(0)), sigmoid(x(1) + s(1)), s(2));
                let new = (x(2) + r * q).tanh();
                h[j] = (1.0 - z) * new + z * h[j];
                for (k, v) in [r, z, new, q].into_iter().enumerate() {
                    out[2].data[saved + k * n + j] = v;
                }
                out[0].data[narrow + j] = h[j];
            }
        }
        out[1].data[b * n..(b + 1) * n].copy_from_slice(&h);
    }
    out
}

pub fn gru_grad(op: &GruGrad, cx: &Eval) -> Vec<RefArray> {
    let [weight, h0, y, saved, dy, dh_last] = *cx.inputs.first_chunk().expect("the shape rule has counted the inputs");
    let plan = Plan::new(y, weight, cx.inputs.get(6), op.direction);
    let n = plan.hidden;
    let mut out = zeros(cx);
    for b in 0..plan.batch {
        let mut dh = plan.state(b, dh_last).to_vec();
        for t in plan.steps(b).into_iter().rev() {
            let (wide, narrow) = (plan.at(4, b, t), plan.at(1, b, t));
            let before = plan.before(b, t, y, h0);
            let (mut da, mut e, mut kept) = (vec![0.0; 3 * n], vec![0.0; 3 * n], vec![0.0; n]);
            for j in 0..n {
                let gate = |k: usize| saved.data[wide + k * n + j];
                let (r, z, new, q) = (gate(0), gate(1), gate(2), gate(3));
                let dh = dh[j] + dy.data[narrow + j];
                let dn = dh * (1.0 - z) * (1.0 - new * new);
                da[j] = dn * q * r * (1.0 - r);
                da[n + j] = dh * (before[j] - new) * z * (1.0 - z);
                da[2 * n + j] = dn;
                e[2 * n + j] = dn * r;
                kept[j] = dh * z;
            }
            e[..2 * n].copy_from_slice(&da[..2 * n]);
            dh = product(weight, &e, true).iter().zip(&kept).map(|(a, b)| a + b).collect();
            outer(&mut out[1], &e, before);
            out[2].data.iter_mut().zip(&e).for_each(|(sum, e)| *sum += e);
            let wide = plan.at(3, b, t);
            out[0].data[wide..wide + 3 * n].copy_from_slice(&da);
        }
        out[3].data[b * n..(b + 1) * n].copy_from_slice(&dh);
    }
    out
}
