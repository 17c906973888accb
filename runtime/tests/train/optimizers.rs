//! Each optimizer against a second implementation on plain vectors, written from the paper or
//! PyTorch's documentation, over several steps of changing gradients; and on a small problem.

use crate::reference::{Machine, loss, parameter, scalar};

use mobilis::devices::reference::RefArray;
use mobilis::graph::VarDecl;
use mobilis::ops::{contraction, elementwise as ew, reduce};
use mobilis::testing::noise;
use mobilis::train::optimizer::MuonScale;
use mobilis::train::{Adafactor, Adam, AdamW, Group, Lion, Muon, NovoGrad, Optimizer, Sgd, TrainOptions, build_step};

const STEPS: usize = 6;
const LRS: [f64; STEPS] = [0.1, 0.05, 0.2, 0.1, 0.01, 0.3];

/// `rows` by `cols` values; vectors have one row.
#[derive(Clone, Debug)]
struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Matrix {
    fn noise(rows: usize, cols: usize, seed: u64) -> Matrix {
        Matrix { rows, cols, data: (0..rows * cols).map(|i| noise(seed, i as u64)).collect() }
    }
}

/// Runs `STEPS` steps of `optimizer` on a parameter of `sizes` under the loss `sum(p * x)`, whose
/// gradient is the input `x`, and asserts that `expected` agrees. `expected` gets the parameter,
/// its gradient, the learning rate and the step, and changes the parameter.
fn follows(
    name: &str,
    sizes: &[usize],
    optimizer: &dyn Optimizer,
    options: &TrainOptions,
    mut expected: impl FnMut(&mut Matrix, &Matrix, f64, usize),
) {
    let p = parameter(name, sizes);
    let graph = loss(std::slice::from_ref(&p), &[sizes], |p, x| {
        let all: Vec<usize> = (0..sizes.len()).collect();
        vec![reduce::reduce(ew::mul(p[0], x[0]), reduce::Kind::Sum, &all)]
    });
    let step = build_step(graph, optimizer, options).unwrap();
    let cols = if sizes.len() < 2 { sizes.iter().product() } else { sizes[1..].iter().product() };
    let rows = sizes.iter().product::<usize>() / cols;
    let mut param = Matrix::noise(rows, cols, 1);
    let mut machine = Machine::default();
    machine.values.insert(p.id, RefArray::new(sizes, param.data.clone()));
    for t in 1..=STEPS {
        let g = Matrix::noise(rows, cols, 100 + t as u64);
        let lr = LRS[t - 1];
        machine.run(&step.update, &[RefArray::new(sizes, g.data.clone()), scalar(lr)]);
        expected(&mut param, &g, lr, t);
        let found = &machine.values[&p.id];
        for (i, (a, b)) in found.data.iter().zip(&param.data).enumerate() {
            assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "step {t}, value {i}: {a} is not {b}");
        }
    }
}

fn plain() -> TrainOptions {
    TrainOptions::default()
}

/// `torch.optim.SGD`, from its documentation.
fn torch_sgd(momentum: f64, dampening: f64, nesterov: bool, wd: f64) -> impl FnMut(&mut Matrix, &Matrix, f64, usize) {
    let mut buffer: Option<Vec<f64>> = None;
    move |p, g, lr, _| {
        let mut d: Vec<f64> = g.data.iter().zip(&p.data).map(|(g, p)| g + wd * p).collect();
        if momentum != 0.0 {
            let b = match buffer.take() {
                None => d.clone(),
                Some(old) => old.iter().zip(&d).map(|(b, g)| momentum * b + (1.0 - dampening) * g).collect(),
            };
            d = if nesterov { d.iter().zip(&b).map(|(g, b)| g + momentum * b).collect() } else { b.clone() };
            buffer = Some(b);
        }
        for (p, d) in p.data.iter_mut().zip(&d) {
            *p -= lr * d;
        }
    }
}

#[test]
fn sgd() {
    follows("w", &[7], &Sgd::new(0.1), &plain(), torch_sgd(0.0, 0.0, false, 0.0));
    follows("w", &[3, 2], &Sgd::new(0.1).momentum(0.9), &plain(), torch_sgd(0.9, 0.0, false, 0.0));
    let damped = Sgd::new(0.1).momentum(0.8).dampening(0.3).weight_decay(0.2);
    follows("w", &[5], &damped, &plain(), torch_sgd(0.8, 0.3, false, 0.2));
    let nesterov = Sgd::new(0.1).momentum(0.9).nesterov().weight_decay(0.05);
    follows("w", &[2, 2, 2], &nesterov, &plain(), torch_sgd(0.9, 0.0, true, 0.05));
}

/// `torch.optim.Adam` and, with `decoupled`, `torch.optim.AdamW`.
fn torch_adam(b1: f64, b2: f64, eps: f64, wd: f64, decoupled: bool) -> impl FnMut(&mut Matrix, &Matrix, f64, usize) {
    let (mut m, mut v) = (vec![0.0; 64], vec![0.0; 64]);
    move |p, g, lr, t| {
        for i in 0..p.data.len() {
            let mut g = g.data[i];
            if decoupled {
                p.data[i] *= 1.0 - lr * wd;
            } else {
                g += wd * p.data[i];
            }
            m[i] += (1.0 - b1) * (g - m[i]);
            v[i] = b2 * v[i] + (1.0 - b2) * g * g;
            let m_hat = m[i] / (1.0 - b1.powi(t as i32));
            let v_hat: f64 = v[i] / (1.0 - b2.powi(t as i32));
            p.data[i] -= lr * m_hat / (v_hat.sqrt() + eps);
        }
    }
}

#[test]
fn adam_and_adamw() {
    follows("w", &[4, 3], &Adam::new(0.1), &plain(), torch_adam(0.9, 0.999, 1e-8, 0.0, false));
    let adam = Adam::new(0.1).betas(0.8, 0.95).eps(1e-3).weight_decay(0.3);
    follows("w", &[9], &adam, &plain(), torch_adam(0.8, 0.95, 1e-3, 0.3, false));
    follows("w", &[9], &AdamW::new(0.1), &plain(), torch_adam(0.9, 0.999, 1e-8, 0.01, true));
    let adamw = AdamW::new(0.1).betas(0.0, 0.95).weight_decay(0.4);
    follows("w", &[2, 3, 2], &adamw, &plain(), torch_adam(0.0, 0.95, 1e-8, 0.4, true));
}

/// Program 1 of Chen et al. 2023.
#[test]
fn lion() {
    let mut m = [0.0; 12];
    follows("w", &[4, 3], &Lion::new(0.1).betas(0.85, 0.97).weight_decay(0.2), &plain(), move |p, g, lr, _| {
        for i in 0..p.data.len() {
            let c: f64 = 0.85 * m[i] + (1.0 - 0.85) * g.data[i];
            p.data[i] -= lr * (c.signum() + 0.2 * p.data[i]);
            m[i] = 0.97 * m[i] + (1.0 - 0.97) * g.data[i];
        }
    });
}

/// Settings of NeMo's `novograd` beside the rate.
#[derive(Clone, Copy)]
struct NeMo {
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    averaging: bool,
    amsgrad: bool,
    luc_trust: Option<f64>,
}

/// NeMo's `nemo/core/optim/novograd.py`, line by line.
fn nemo_novograd(with: NeMo) -> impl FnMut(&mut Matrix, &Matrix, f64, usize) {
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (mut exp_avg, mut exp_avg_sq, mut largest) = (vec![0.0; 64], 0.0, 0.0f64);
    let (beta1, beta2) = with.betas;
    move |p, g, lr, _| {
        let square = norm(&g.data).powi(2);
        exp_avg_sq = if exp_avg_sq == 0.0 { square } else { exp_avg_sq * beta2 + square * (1.0 - beta2) };
        largest = largest.max(exp_avg_sq);
        let denom = if with.amsgrad { largest } else { exp_avg_sq }.sqrt() + with.eps;
        let count = p.data.len();
        for i in 0..count {
            let mut grad = g.data[i] / denom + with.weight_decay * p.data[i];
            if with.averaging {
                grad *= 1.0 - beta1;
            }
            exp_avg[i] = exp_avg[i] * beta1 + grad;
        }
        let luc = |trust: f64| (trust * norm(&p.data) / (norm(&exp_avg[..count]) + 1e-8)).min(lr);
        let lr = with.luc_trust.map_or(lr, luc);
        for (p, m) in p.data.iter_mut().zip(&exp_avg) {
            *p -= lr * m;
        }
    }
}

#[test]
fn novograd() {
    let plain_settings =
        NeMo { betas: (0.95, 0.98), eps: 1e-8, weight_decay: 0.0, averaging: false, amsgrad: false, luc_trust: None };
    follows("w", &[4, 3], &NovoGrad::new(0.1), &plain(), nemo_novograd(plain_settings));
    let speech = NeMo { betas: (0.8, 0.25), eps: 1e-3, weight_decay: 0.3, ..plain_settings };
    let ours = NovoGrad::new(0.1).betas(0.8, 0.25).eps(1e-3).weight_decay(0.3);
    follows("w", &[2, 3, 2], &ours, &plain(), nemo_novograd(speech));
    let averaged = NeMo { averaging: true, amsgrad: true, ..speech };
    follows("w", &[9], &ours.clone().averaging().amsgrad(), &plain(), nemo_novograd(averaged));
    for trust in [0.01, 100.0] {
        let bounded = NeMo { luc_trust: Some(trust), ..speech };
        follows("w", &[5, 2], &ours.clone().clipped(trust), &plain(), nemo_novograd(bounded));
    }
}

fn rms(v: &[f64]) -> f64 {
    (v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64).sqrt()
}

struct AdafactorSettings {
    relative: bool,
    warmup: bool,
    scaled: bool,
    clip: f64,
    beta1: Option<f64>,
    wd: f64,
    factored: bool,
}

/// `transformers.optimization.Adafactor.step`.
fn hf_adafactor(s: AdafactorSettings) -> impl FnMut(&mut Matrix, &Matrix, f64, usize) {
    let (mut row, mut col, mut full, mut m) = (vec![0.0; 64], vec![0.0; 64], vec![0.0; 64], vec![0.0; 64]);
    move |p, g, lr, t| {
        let t = t as f64;
        let mut rate = lr;
        if s.relative {
            let min_step = if s.warmup { 1e-6 * t } else { 1e-2 };
            rate *= f64::min(min_step, 1.0 / t.sqrt());
        }
        if s.scaled {
            rate *= f64::max(1e-3, rms(&p.data));
        }
        let beta2t = 1.0 - t.powf(-0.8);
        let (rows, cols) = (p.rows, p.cols);
        let square: Vec<f64> = g.data.iter().map(|g| g * g + 1e-30).collect();
        let mut update = vec![0.0; rows * cols];
        if s.factored {
            for r in 0..rows {
                let mean = (0..cols).map(|c| square[r * cols + c]).sum::<f64>() / cols as f64;
                row[r] = beta2t * row[r] + (1.0 - beta2t) * mean;
            }
            for c in 0..cols {
                let mean = (0..rows).map(|r| square[r * cols + c]).sum::<f64>() / rows as f64;
                col[c] = beta2t * col[c] + (1.0 - beta2t) * mean;
            }
            let row_mean = row[..rows].iter().sum::<f64>() / rows as f64;
            for r in 0..rows {
                for c in 0..cols {
                    let v: f64 = row[r] / row_mean * col[c];
                    update[r * cols + c] = g.data[r * cols + c] / v.sqrt();
                }
            }
        } else {
            for i in 0..update.len() {
                full[i] = beta2t * full[i] + (1.0 - beta2t) * square[i];
                update[i] = g.data[i] / f64::sqrt(full[i]);
            }
        }
        let excess = f64::max(1.0, rms(&update) / s.clip);
        for i in 0..update.len() {
            update[i] *= rate / excess;
            if let Some(beta1) = s.beta1 {
                m[i] = beta1 * m[i] + (1.0 - beta1) * update[i];
                update[i] = m[i];
            }
            p.data[i] += -s.wd * rate * p.data[i];
            p.data[i] -= update[i];
        }
    }
}

#[test]
fn adafactor() {
    let usual = |factored| AdafactorSettings {
        relative: true,
        warmup: false,
        scaled: true,
        clip: 1.0,
        beta1: None,
        wd: 0.0,
        factored,
    };
    follows("w", &[4, 3], &Adafactor::relative(), &plain(), hf_adafactor(usual(true)));
    follows("b", &[5], &Adafactor::relative(), &plain(), hf_adafactor(usual(false)));
    let warm = AdafactorSettings { warmup: true, ..usual(true) };
    follows("w", &[4, 3], &Adafactor::relative().warmup(), &plain(), hf_adafactor(warm));
    let given =
        AdafactorSettings { relative: false, scaled: false, clip: 0.5, beta1: Some(0.9), wd: 0.1, ..usual(true) };
    let optimizer = Adafactor::new(0.1).clip_threshold(0.5).beta1(0.9).weight_decay(0.1);
    follows("w", &[3, 4], &optimizer, &plain(), hf_adafactor(given));
}

/// `a b`, or `a b'` where `transposed`.
fn product(a: &Matrix, b: &Matrix, transposed: bool) -> Matrix {
    let cols = if transposed { b.rows } else { b.cols };
    let mut out = Matrix { rows: a.rows, cols, data: vec![0.0; a.rows * cols] };
    for i in 0..a.rows {
        for j in 0..cols {
            for k in 0..a.cols {
                let right = if transposed { b.data[j * b.cols + k] } else { b.data[k * b.cols + j] };
                out.data[i * cols + j] += a.data[i * a.cols + k] * right;
            }
        }
    }
    out
}

fn transpose(a: &Matrix) -> Matrix {
    let data = (0..a.cols).flat_map(|j| (0..a.rows).map(move |i| (i, j))).map(|(i, j)| a.data[i * a.cols + j]);
    Matrix { rows: a.cols, cols: a.rows, data: data.collect() }
}

/// `zeropower_via_newtonschulz5` of Jordan's Muon repository.
fn newton_schulz(g: &Matrix) -> Matrix {
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    let mut x = if g.rows > g.cols { transpose(g) } else { g.clone() };
    let norm = x.data.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
    x.data.iter_mut().for_each(|v| *v /= norm);
    for _ in 0..5 {
        let gram = product(&x, &x, true);
        let square = product(&gram, &gram, false);
        let mut mix = gram.clone();
        mix.data.iter_mut().zip(&square.data).for_each(|(g, s)| *g = b * *g + c * s);
        let turned = product(&mix, &x, false);
        x.data.iter_mut().zip(&turned.data).for_each(|(x, t)| *x = a * *x + t);
    }
    if g.rows > g.cols { transpose(&x) } else { x }
}

fn jordan_muon(beta: f64, wd: f64, scale: impl Fn(f64, f64) -> f64) -> impl FnMut(&mut Matrix, &Matrix, f64, usize) {
    let mut momentum = vec![0.0; 64];
    move |p, g, lr, _| {
        let mut update = g.clone();
        for i in 0..g.data.len() {
            momentum[i] += (1.0 - beta) * (g.data[i] - momentum[i]);
            update.data[i] += beta * (momentum[i] - g.data[i]);
        }
        let update = newton_schulz(&update);
        let factor = scale(p.rows as f64, p.cols as f64);
        for (p, u) in p.data.iter_mut().zip(&update.data) {
            *p *= 1.0 - lr * wd;
            *p -= lr * factor * u;
        }
    }
}

#[test]
fn muon() {
    let spectral = |rows: f64, cols: f64| f64::max(1.0, rows / cols).sqrt();
    let name = "blocks.0.mlp.weight";
    follows(name, &[3, 5], &Muon::new(0.02, 3e-4), &plain(), jordan_muon(0.95, 0.0, spectral));
    let decayed = Muon::new(0.02, 3e-4).momentum(0.9).weight_decay(0.1);
    follows(name, &[6, 4], &decayed, &plain(), jordan_muon(0.9, 0.1, spectral));
    // A convolution's weight is a matrix of its outputs by everything else.
    follows(name, &[4, 3, 2], &decayed, &plain(), jordan_muon(0.9, 0.1, spectral));
    let matched = Muon::new(0.02, 3e-4).scale(MuonScale::MatchAdamW);
    follows(name, &[6, 4], &matched, &plain(), jordan_muon(0.95, 0.0, |r, c| 0.2 * r.max(c).sqrt()));
    // Embeddings and vectors: AdamW at rest_lr / lr times the program's rate.
    let rest = |ratio: f64, wd: f64| {
        let mut adam = torch_adam(0.9, 0.95, 1e-8, wd, true);
        move |p: &mut Matrix, g: &Matrix, lr: f64, t: usize| adam(p, g, lr * ratio, t)
    };
    let muon = Muon::new(0.02, 5e-3).weight_decay(0.1);
    follows("embed.weight", &[4, 3], &muon, &plain(), rest(0.25, 0.1));
    follows("lm_head.weight", &[4, 3], &muon, &plain(), rest(0.25, 0.1));
    follows("blocks.0.norm.weight", &[4], &muon, &plain(), rest(0.25, 0.1));
    let all = muon.except(&[]);
    follows("embed.weight", &[4, 3], &all, &plain(), jordan_muon(0.95, 0.1, spectral));
}

/// The singular values that five iterations leave lie around 1: `x x'` is near the identity.
#[test]
fn muon_orthogonalizes() {
    let x = newton_schulz(&Matrix::noise(4, 16, 3));
    let gram = product(&x, &x, true);
    for i in 0..4 {
        for j in 0..4 {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((gram.data[i * 4 + j] - expected).abs() < 0.5, "{gram:?}");
        }
    }
}

#[test]
fn groups_set_rates_and_decays() {
    let scaled = |factor: f64, wd: f64| {
        let mut adam = torch_adam(0.9, 0.999, 1e-8, wd, true);
        move |p: &mut Matrix, g: &Matrix, lr: f64, t: usize| adam(p, g, lr * factor, t)
    };
    let adamw = AdamW::new(0.1).weight_decay(0.5);
    let options = plain().group(Group::new("**.bias").weight_decay(0.0)).group(Group::new("head.*").lr_scale(0.1));
    // Every group must cover something, so give each case the groups that it has.
    let bias = TrainOptions { groups: vec![options.groups[0].clone()], ..plain() };
    let head = TrainOptions { groups: vec![options.groups[1].clone()], ..plain() };
    follows("blocks.0.bias", &[4], &adamw, &bias, scaled(1.0, 0.0));
    follows("head.weight", &[4], &adamw, &head, scaled(0.1, 0.5));
    follows("head.bias", &[4], &adamw, &options, scaled(0.1, 0.0));
    follows("norm.weight", &[4], &adamw, &plain().decay_matrices_only(), scaled(1.0, 0.0));
    follows("proj.weight", &[2, 2], &adamw, &plain().decay_matrices_only(), scaled(1.0, 0.5));
    let set = plain().decay_matrices_only().group(Group::new("norm.*").weight_decay(0.2));
    follows("norm.weight", &[4], &adamw, &set, scaled(1.0, 0.2));
}

/// A linear fit `y = x w' + b` with an exact solution: every optimizer finds it.
#[test]
fn every_optimizer_converges() {
    let (n, i, o) = (12, 3, 2);
    let x = Matrix::noise(n, i, 5);
    let truth = Matrix::noise(o, i, 6);
    let y = product(&x, &truth, true);
    let cases: Vec<(Box<dyn Optimizer>, usize, f64)> = vec![
        (Box::new(Sgd::new(0.3)), 300, 1e-3),
        (Box::new(Sgd::new(0.1).momentum(0.9).nesterov()), 150, 1e-3),
        (Box::new(Adam::new(0.05)), 200, 1e-3),
        (Box::new(AdamW::new(0.05).weight_decay(0.0)), 200, 1e-3),
        (Box::new(Adafactor::new(0.05)), 200, 2e-2),
        (Box::new(Adafactor::relative()), 1500, 2e-2),
        (Box::new(Lion::new(0.02)), 400, 2e-2),
        (Box::new(Muon::new(0.05, 0.05)), 200, 5e-2),
    ];
    for (optimizer, steps, bound) in cases {
        let params: [VarDecl; 2] = [parameter("w", &[o, i]), parameter("b", &[o])];
        let graph = loss(&params, &[&[n, i], &[n, o]], |p, inputs| {
            let error = ew::sub(ew::add(contraction::linear(inputs[0], p[0]), p[1]), inputs[1]);
            vec![reduce::mean(ew::mul(error, error), &[0, 1])]
        });
        let step = build_step(graph, &*optimizer, &plain()).unwrap();
        let mut machine = Machine::default();
        machine.values.insert(params[0].id, RefArray::new(&[o, i], Matrix::noise(o, i, 7).data));
        let data = [RefArray::new(&[n, i], x.data.clone()), RefArray::new(&[n, o], y.data.clone())];
        let mut last = f64::NAN;
        for s in 0..steps {
            // Down to zero, for the rules whose steps do not shrink by themselves.
            let lr = optimizer.learning_rate() * (1.0 - s as f64 / steps as f64);
            let inputs = [data[0].clone(), data[1].clone(), scalar(lr)];
            last = machine.run(&step.update, &inputs)[0].data[0];
        }
        assert!(last.sqrt() < bound, "{} ends at {}", optimizer.name(), last.sqrt());
    }
}
