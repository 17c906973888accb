//! The CTC loss on the emulator, and on the GPU where there is one: against forward and backward sums in f64, which
//! differences check, and against NeMo's losses.

mod common;

use mobilis_cuda::ctc::{Ctc, gradient, loss};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Gpu, Ptr, status};

fn log_add(a: f64, b: f64) -> f64 {
    let m = a.max(b);
    if m == f64::NEG_INFINITY { m } else { m + ((a - m).exp() + (b - m).exp()).ln() }
}

/// Loss and gradient of one sequence of `logits [time, classes]`.
fn reference(logits: &[f64], classes: usize, labels: &[i32], blank: usize) -> (f64, Vec<f64>) {
    let time = logits.len() / classes;
    let n = 2 * labels.len() + 1;
    let class = |s: usize| if s.is_multiple_of(2) { blank } else { labels[s / 2] as usize };
    let skips = |s: usize| s % 2 == 1 && s >= 3 && labels[s / 2] != labels[s / 2 - 1];
    let p: Vec<f64> = logits
        .chunks(classes)
        .flat_map(|row| {
            let all = row.iter().fold(f64::NEG_INFINITY, |a, b| log_add(a, *b));
            row.iter().map(move |v| v - all).collect::<Vec<_>>()
        })
        .collect();
    let none = f64::NEG_INFINITY;
    let (mut alpha, mut beta) = (vec![vec![none; n]; time], vec![vec![none; n]; time]);
    for t in 0..time {
        for s in 0..n {
            let mut v = if t == 0 && s < 2 { 0.0 } else { none };
            if t > 0 {
                v = log_add(v, alpha[t - 1][s]);
                v = if s > 0 { log_add(v, alpha[t - 1][s - 1]) } else { v };
                v = if skips(s) { log_add(v, alpha[t - 1][s - 2]) } else { v };
            }
            alpha[t][s] = v + p[t * classes + class(s)];
        }
    }
    for t in (0..time).rev() {
        for s in 0..n {
            let mut v = if t + 1 == time && s + 2 >= n { 0.0 } else { none };
            if t + 1 < time {
                let after = |s: usize| beta[t + 1][s] + p[(t + 1) * classes + class(s)];
                v = log_add(v, after(s));
                v = if s + 1 < n { log_add(v, after(s + 1)) } else { v };
                v = if s + 2 < n && skips(s + 2) { log_add(v, after(s + 2)) } else { v };
            }
            beta[t][s] = v;
        }
    }
    let total = match time {
        0 if n == 1 => 0.0,
        0 => none,
        _ => (n.saturating_sub(2)..n).fold(none, |a, s| log_add(a, alpha[time - 1][s])),
    };
    let mut grad: Vec<f64> = p.iter().map(|p| if total == none { 0.0 } else { p.exp() }).collect();
    for (t, s) in (0..time).flat_map(|t| (0..n).map(move |s| (t, s))).filter(|_| total > none) {
        grad[t * classes + class(s)] -= (alpha[t][s] + beta[t][s] - total).exp();
    }
    (-total, grad)
}

#[test]
fn the_reference_is_the_derivative() {
    let labels = [1, 3, 3, 0];
    let x: Vec<f64> = values(7 * 5, 3).iter().map(|v| *v as f64).collect();
    let (_, grad) = reference(&x, 5, &labels, 2);
    for i in 0..x.len() {
        let mut moved = x.clone();
        moved[i] += 1e-5;
        let up = reference(&moved, 5, &labels, 2).0;
        moved[i] -= 2e-5;
        let expected = (up - reference(&moved, 5, &labels, 2).0) / 2e-5;
        assert!((grad[i] - expected).abs() < 1e-8, "{i}: {} {expected}", grad[i]);
    }
}

struct Case {
    sizes: [usize; 4],
    blank: usize,
    targets: Vec<i32>,
    lengths: Option<[Vec<i32>; 2]>,
}

/// Losses and gradients on a device, and what it refused.
fn run(gpu: &Gpu, case: &Case, x: &[f32], g: &[f32], zero: bool) -> (Vec<f32>, Vec<f32>, Option<String>) {
    let [batch, time, labels, classes] = case.sizes;
    let targets = upload(gpu, &case.targets);
    let lengths = case.lengths.as_ref().map(|l| [upload(gpu, &l[0]), upload(gpu, &l[1])]);
    let at = |i: usize| lengths.as_ref().map_or(Ptr::NULL, |l| l[i].ptr());
    let s = Ctc {
        batch,
        time,
        labels,
        classes,
        blank: case.blank,
        zero_infinity: zero,
        targets: targets.ptr(),
        time_lengths: at(0),
        label_lengths: at(1),
    };
    let (xd, gd, words) = (upload(gpu, x), upload(gpu, g), upload(gpu, &[0i32; 4]));
    let (losses, grad) = (gpu.alloc(batch * 4).unwrap(), gpu.alloc(x.len() * 4).unwrap());
    let scratch = gpu.alloc(s.workspace()).unwrap();
    gpu.run(&loss(&s, xd.ptr(), losses.ptr(), scratch.ptr(), words.ptr()).unwrap()).unwrap();
    let found = download(&losses, batch);
    gpu.run(&gradient(&s, xd.ptr(), gd.ptr(), grad.ptr(), scratch.ptr()).unwrap()).unwrap();
    let words: Vec<i32> = download(&words, 4);
    (found, download(&grad, x.len()), status::message(words.try_into().unwrap()))
}

#[test]
fn losses_and_gradients_of_all_lengths() {
    let cases = [
        // Repeated labels, no labels, no frames, more labels than frames, as many.
        Case {
            sizes: [6, 7, 4, 5],
            blank: 4,
            targets: vec![1, 1, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 1, 2, 3, 0, 2, 2, 2, 2],
            lengths: Some([vec![7, 5, 0, 0, 3, 4], vec![4, 2, 0, 1, 4, 4]]),
        },
        // More states than a warp has threads, every class several times.
        Case { sizes: [1, 90, 40, 7], blank: 0, targets: (0..40).map(|i| i % 6 + 1).collect(), lengths: None },
        // More states than a block has threads, and more than are read ahead by none.
        Case { sizes: [1, 530, 520, 3], blank: 0, targets: (0..520).map(|i| i % 2 + 1).collect(), lengths: None },
        Case { sizes: [2, 3, 0, 4], blank: 1, targets: vec![], lengths: None },
    ];
    for (turn, gpu) in devices().into_iter().enumerate() {
        for case in &cases {
            let [batch, time, labels, classes] = case.sizes;
            if labels > 500 && turn > 0 && gpu.info().emulated {
                continue; // half a million steps of threads: one schedule says it
            }
            let (x, g) = (values(batch * time * classes, 1), values(batch, 2));
            let (losses, grads, refused) = run(&gpu, case, &x, &g, false);
            assert_eq!(refused, None);
            for b in 0..batch {
                let (t, u) = case.lengths.as_ref().map_or((time, labels), |l| (l[0][b] as usize, l[1][b] as usize));
                let rows: Vec<f64> = x[b * time * classes..][..t * classes].iter().map(|v| *v as f64).collect();
                let (loss, mut grad) = reference(&rows, classes, &case.targets[b * labels..][..u], case.blank);
                let close = losses[b] as f64 == loss || (losses[b] as f64 - loss).abs() < 2e-6 * loss.abs().max(1.0);
                assert!(close, "sequence {b} of {:?}: {} {loss}", case.sizes, losses[b]);
                grad.iter_mut().for_each(|v| *v *= g[b] as f64);
                grad.resize(time * classes, 0.0);
                grad.push(1.0); // the scale: gradients are at most 1
                let mut found = grads[b * time * classes..][..time * classes].to_vec();
                found.push(1.0);
                let d = difference(&found, &grad);
                assert!(d < 2e-4, "sequence {b} of {:?}: {d}", case.sizes);
            }
            let (losses, ..) = run(&gpu, case, &x, &g, true);
            assert!(losses.iter().all(|v| v.is_finite()), "{losses:?}");
        }
        let wrong = Case { targets: vec![1, 9], sizes: [1, 4, 2, 5], blank: 0, lengths: None };
        let (.., refused) = run(&gpu, &wrong, &values(20, 1), &[1.0], false);
        assert!(refused.unwrap().contains("target 9 is not one of 5"));
    }
}

#[test]
fn losses_equal_those_of_nemo() {
    for name in ["nemo_conformer_ctc", "nemo_fastconformer_ctc"] {
        let Some(folder) = common::golden(name) else { continue };
        let x = common::reals(&folder, "out.log_probs");
        let targets = common::wholes(&folder, "in.targets");
        let frames = common::wholes(&folder, "out.encoder_length");
        let labels = common::wholes(&folder, "in.target_length");
        let (batch, width) = (frames.len(), targets.len() / frames.len());
        let classes = 97;
        let time = x.len() / batch / classes;
        let case = Case { sizes: [batch, time, width, classes], blank: 96, targets, lengths: Some([frames, labels]) };
        let expected: Vec<f64> = common::reals(&folder, "out.ctc_per_sample").iter().map(|v| *v as f64).collect();
        for gpu in devices() {
            let (losses, ..) = run(&gpu, &case, &x, &vec![1.0; batch], false);
            let d = difference(&losses, &expected);
            assert!(d < 1e-6, "{name}: {d}");
        }
    }
}
