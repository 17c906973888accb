//! LSTM and GRU on the emulator, and on the GPU where there is one: outputs against the formulas in f64,
//! gradients against differences of them.

use mobilis_cuda::recurrent::*;
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Buffer, Gpu, Ptr};

#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    time: usize,
    hidden: usize,
    backward: bool,
    lengths: Option<&'static [i32]>,
    /// Inputs of each kind whose gradient is checked.
    samples: usize,
}

/// Small and large layers, both directions, with and without lengths.
const CASES: [Case; 6] = [
    Case { batch: 5, time: 4, hidden: 3, backward: false, lengths: Some(&[4, 0, 2, 9, 1]), samples: 1000 },
    Case { batch: 5, time: 4, hidden: 3, backward: true, lengths: Some(&[4, -1, 2, 3, 1]), samples: 1000 },
    Case { batch: 2, time: 2, hidden: 66, backward: false, lengths: None, samples: 10 },
    Case { batch: 3, time: 2, hidden: 117, backward: true, lengths: Some(&[2, 0, 1]), samples: 10 },
    Case { batch: 34, time: 1, hidden: 117, backward: false, lengths: None, samples: 2 },
    Case { batch: 2, time: 0, hidden: 5, backward: false, lengths: None, samples: 1000 },
];

impl Case {
    fn length(&self, b: usize) -> usize {
        self.lengths.map_or(self.time, |l| (l[b].max(0) as usize).min(self.time))
    }

    fn steps(&self, b: usize) -> Vec<usize> {
        let n = self.length(b);
        (0..n).map(|i| if self.backward { n - 1 - i } else { i }).collect()
    }

    fn sizes(&self, lengths: &Option<Buffer>) -> Steps {
        let lengths = lengths.as_ref().map_or(Ptr::NULL, Buffer::ptr);
        Steps { batch: self.batch, time: self.time, hidden: self.hidden, backward: self.backward, lengths }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `gates, weight, h, c` to `y, h, c, activated gates, cells`.
fn lstm_reference(s: &Case, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, [gates, weight, h0, c0]) = (s.hidden, [&x[0], &x[1], &x[2], &x[3]]);
    let steps = s.batch * s.time * n;
    let (mut y, mut act, mut cells) = (vec![0.0; steps], vec![0.0; 4 * steps], vec![0.0; steps]);
    let (mut hs, mut cs) = (h0.clone(), c0.clone());
    for b in 0..s.batch {
        let (h, c) = (&mut hs[b * n..][..n], &mut cs[b * n..][..n]);
        for t in s.steps(b) {
            let old = h.to_vec();
            for j in 0..n {
                let a = |g: usize| {
                    let row = &weight[(g * n + j) * n..][..n];
                    gates[((b * s.time + t) * 4 + g) * n + j] + row.iter().zip(&old).map(|(w, h)| w * h).sum::<f64>()
                };
                let (i, f, g, o) = (sigmoid(a(0)), sigmoid(a(1)), a(2).tanh(), sigmoid(a(3)));
                c[j] = f * c[j] + i * g;
                h[j] = o * c[j].tanh();
                for (k, v) in [i, f, g, o].into_iter().enumerate() {
                    act[((b * s.time + t) * 4 + k) * n + j] = v;
                }
                y[(b * s.time + t) * n + j] = h[j];
                cells[(b * s.time + t) * n + j] = c[j];
            }
        }
    }
    vec![y, hs, cs, act, cells]
}

/// `gates, weight, h, bias` to `y, h, saved`.
fn gru_reference(s: &Case, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, [gates, weight, h0, bias]) = (s.hidden, [&x[0], &x[1], &x[2], &x[3]]);
    let steps = s.batch * s.time * n;
    let (mut y, mut saved, mut hs) = (vec![0.0; steps], vec![0.0; 4 * steps], h0.clone());
    for b in 0..s.batch {
        let h = &mut hs[b * n..][..n];
        for t in s.steps(b) {
            let old = h.to_vec();
            for j in 0..n {
                let a = |g: usize| gates[((b * s.time + t) * 3 + g) * n + j];
                let q = |g: usize| {
                    let row = &weight[(g * n + j) * n..][..n];
                    bias[g * n + j] + row.iter().zip(&old).map(|(w, h)| w * h).sum::<f64>()
                };
                let (r, z, q) = (sigmoid(a(0) + q(0)), sigmoid(a(1) + q(1)), q(2));
                let new = (a(2) + r * q).tanh();
                h[j] = (1.0 - z) * new + z * old[j];
                for (k, v) in [r, z, new, q].into_iter().enumerate() {
                    saved[((b * s.time + t) * 4 + k) * n + j] = v;
                }
                y[(b * s.time + t) * n + j] = h[j];
            }
        }
    }
    vec![y, hs, saved]
}

type Reference = fn(&Case, &[Vec<f64>]) -> Vec<Vec<f64>>;

/// Checks some gradients of `sum over outputs of output weight` against differences.
fn check_gradients(s: &Case, reference: Reference, x: &[Vec<f64>], weights: &[Vec<f32>], found: &[Vec<f32>]) {
    let loss = |x: &[Vec<f64>]| -> f64 {
        let out = reference(s, x);
        weights.iter().zip(&out).flat_map(|(w, o)| w.iter().zip(o).map(|(w, o)| *w as f64 * o)).sum()
    };
    for (i, grads) in found.iter().enumerate() {
        let largest = grads.iter().fold(1e-3f64, |m, v| m.max(v.abs() as f64));
        let n = grads.len();
        for k in 0..n.min(s.samples) {
            let at = if n <= s.samples { k } else { (k * 7919 + 13) % n };
            let mut moved = x.to_vec();
            let h = 1e-4;
            moved[i][at] += h;
            let up = loss(&moved);
            moved[i][at] -= 2.0 * h;
            let expected = (up - loss(&moved)) / (2.0 * h);
            let d = (grads[at] as f64 - expected).abs() / largest;
            assert!(d < 1e-5, "{s:?}: gradient {i} at {at} is {}, not {expected}", grads[at]);
        }
    }
}

fn wide(x: &[Vec<f32>]) -> Vec<Vec<f64>> {
    x.iter().map(|v| v.iter().map(|v| *v as f64).collect()).collect()
}

fn scaled(count: usize, seed: u64, by: f32) -> Vec<f32> {
    values(count, seed).into_iter().map(|v| v * by).collect()
}

fn uploads(gpu: &Gpu, x: &[Vec<f32>]) -> Vec<Buffer> {
    x.iter().map(|v| upload(gpu, v)).collect()
}

fn rooms(gpu: &Gpu, counts: &[usize]) -> Vec<Buffer> {
    counts.iter().map(|n| gpu.alloc(n * 4).unwrap()).collect()
}

fn downloads(from: &[Buffer]) -> Vec<Vec<f32>> {
    from.iter().map(|b| download(b, b.bytes() / 4)).collect()
}

fn check_outputs(s: &Case, found: &[Vec<f32>], expected: &[Vec<f64>]) {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let d = difference(f, e);
        assert!(d < 2e-6, "{s:?}: output {i}: {d}");
    }
}

#[test]
fn lstm_and_its_gradient() {
    for gpu in devices() {
        for s in CASES {
            let (n, steps, state) = (s.hidden, s.batch * s.time * s.hidden, s.batch * s.hidden);
            let by = 1.0 / (n as f32).sqrt();
            let x = [values(4 * steps, 1), scaled(4 * n * n, 2, by), values(state, 3), values(state, 4)];
            let lengths = s.lengths.map(|l| upload(&gpu, l));
            let sizes = s.sizes(&lengths);
            let (d, out) = (uploads(&gpu, &x), rooms(&gpu, &[steps, state, state, 4 * steps, steps]));
            let at = |b: &[Buffer], i: usize| b[i].ptr();
            let input = LstmInput { gates: at(&d, 0), weight: at(&d, 1), h: at(&d, 2), c: at(&d, 3) };
            let output =
                LstmOutput { y: at(&out, 0), h: at(&out, 1), c: at(&out, 2), gates: at(&out, 3), cells: at(&out, 4) };
            gpu.run(&lstm(&sizes, &input, &output).unwrap()).unwrap();
            check_outputs(&s, &downloads(&out), &lstm_reference(&s, &wide(&x)));

            let weights = [values(steps, 5), values(state, 6), values(state, 7)];
            let (g, grads) = (uploads(&gpu, &weights), rooms(&gpu, &[4 * steps, 4 * n * n, state, state]));
            let input = LstmGradInput {
                weight: at(&d, 1),
                h: at(&d, 2),
                c: at(&d, 3),
                y: at(&out, 0),
                gates: at(&out, 3),
                cells: at(&out, 4),
                dy: at(&g, 0),
                dh: at(&g, 1),
                dc: at(&g, 2),
            };
            let output =
                LstmGradOutput { gates: at(&grads, 0), weight: at(&grads, 1), h: at(&grads, 2), c: at(&grads, 3) };
            let scratch = gpu.alloc(sizes.grad_workspace(4)).unwrap();
            gpu.run(&lstm_grad(&sizes, &input, &output, scratch.ptr()).unwrap()).unwrap();
            check_gradients(&s, lstm_reference, &wide(&x), &weights, &downloads(&grads));
        }
    }
}

#[test]
fn gru_and_its_gradient() {
    for gpu in devices() {
        for s in CASES {
            let (n, steps, state) = (s.hidden, s.batch * s.time * s.hidden, s.batch * s.hidden);
            let by = 1.0 / (n as f32).sqrt();
            let x = [values(3 * steps, 1), scaled(3 * n * n, 2, by), values(state, 3), values(3 * n, 4)];
            let lengths = s.lengths.map(|l| upload(&gpu, l));
            let sizes = s.sizes(&lengths);
            let (d, out) = (uploads(&gpu, &x), rooms(&gpu, &[steps, state, 4 * steps]));
            let at = |b: &[Buffer], i: usize| b[i].ptr();
            let input = GruInput { gates: at(&d, 0), weight: at(&d, 1), bias: at(&d, 3), h: at(&d, 2) };
            let output = GruOutput { y: at(&out, 0), h: at(&out, 1), saved: at(&out, 2) };
            gpu.run(&gru(&sizes, &input, &output).unwrap()).unwrap();
            check_outputs(&s, &downloads(&out), &gru_reference(&s, &wide(&x)));

            let weights = [values(steps, 5), values(state, 6)];
            let (g, grads) = (uploads(&gpu, &weights), rooms(&gpu, &[3 * steps, 3 * n * n, state, 3 * n]));
            let input = GruGradInput {
                weight: at(&d, 1),
                h: at(&d, 2),
                y: at(&out, 0),
                saved: at(&out, 2),
                dy: at(&g, 0),
                dh: at(&g, 1),
            };
            let output =
                GruGradOutput { gates: at(&grads, 0), weight: at(&grads, 1), bias: at(&grads, 3), h: at(&grads, 2) };
            let scratch = gpu.alloc(sizes.grad_workspace(3)).unwrap();
            gpu.run(&gru_grad(&sizes, &input, &output, scratch.ptr()).unwrap()).unwrap();
            check_gradients(&s, gru_reference, &wide(&x), &weights, &downloads(&grads));
        }
    }
}
