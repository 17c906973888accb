//! Transducer losses on the emulator, and on the GPU where there is one: against sums over paths in f64, gradients
//! against differences of these, and both against NeMo's.

mod common;

use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::transducer::{Bend, Transducer, gradient, loss, nodes};
use mobilis_cuda::{Buffer, Gpu, Ptr, status};

#[derive(Clone)]
struct Case {
    batch: usize,
    time: usize,
    labels: usize,
    tokens: usize,
    blank: usize,
    durations: Vec<usize>,
    sigma: f32,
    targets: Vec<i32>,
    lengths: Option<[Vec<i32>; 2]>,
}

impl Case {
    fn wide(&self) -> usize {
        self.tokens + self.durations.len()
    }
    fn each(&self) -> usize {
        self.time * (self.labels + 1) * self.wide()
    }
    fn lengths(&self, b: usize) -> (usize, usize) {
        self.lengths.as_ref().map_or((self.time, self.labels), |l| (l[0][b].max(0) as usize, l[1][b].max(0) as usize))
    }
}

/// The loss of sequence `b` with its logits `x`: probabilities of all paths, summed from the end.
fn reference(s: &Case, b: usize, x: &[f64]) -> f64 {
    let (frames, count) = s.lengths(b);
    let log_softmax = |row: &[f64]| -> Vec<f64> {
        let most = row.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let all = most + row.iter().map(|v| (v - most).exp()).sum::<f64>().ln();
        row.iter().map(|v| v - all).collect()
    };
    let mut to_end = vec![vec![0f64; count + 1]; frames + 1];
    to_end[frames][count] = 1.0;
    for t in (0..frames).rev() {
        for u in (0..=count).rev() {
            let row = &x[(t * (s.labels + 1) + u) * s.wide()..][..s.wide()];
            let p = log_softmax(&row[..s.tokens]);
            let label = |u: usize| p[s.targets[b * s.labels + u] as usize];
            if s.durations.is_empty() {
                to_end[t][u] = p[s.blank].exp() * to_end[t + 1][u];
                if u < count {
                    to_end[t][u] += label(u).exp() * to_end[t][u + 1];
                }
                continue;
            }
            let spans = log_softmax(&row[s.tokens..]);
            for (l, span) in s.durations.iter().zip(spans).filter(|(l, _)| t + **l <= frames) {
                let off = span - s.sigma as f64;
                if *l > 0 {
                    to_end[t][u] += (p[s.blank] + off).exp() * to_end[t + l][u];
                }
                if u < count && t + l < frames {
                    to_end[t][u] += (label(u) + off).exp() * to_end[t + l][u + 1];
                }
            }
        }
    }
    if frames == 0 { f64::INFINITY } else { -to_end[0][0].ln() }
}

struct Found {
    losses: Vec<f32>,
    grad: Vec<f32>,
    refused: Option<String>,
}

/// Reads the logits `step` frames at a time.
fn run(gpu: &Gpu, s: &Case, x: &[f32], g: &[f32], bend: Bend, step: usize) -> Found {
    let targets = upload(gpu, &s.targets);
    let lengths = s.lengths.as_ref().map(|l| [upload(gpu, &l[0]), upload(gpu, &l[1])]);
    let at = |i: usize| lengths.as_ref().map_or(Ptr::NULL, |l| l[i].ptr());
    let sizes = Transducer {
        batch: s.batch,
        time: s.time,
        labels: s.labels,
        tokens: s.tokens,
        blank: s.blank,
        durations: s.durations.clone(),
        sigma: s.sigma,
        targets: targets.ptr(),
        time_lengths: at(0),
        label_lengths: at(1),
    };
    let frame = s.each() / s.time.max(1);
    // The logits of some frames of every sequence.
    let part = |from: usize, n: usize| -> Vec<f32> {
        (0..s.batch).flat_map(|b| x[b * s.each() + from * frame..][..n * frame].to_vec()).collect()
    };
    let ranges: Vec<_> = (0..s.time).step_by(step).map(|t| t..(t + step).min(s.time)).collect();
    let (gd, words, losses) = (upload(gpu, g), upload(gpu, &[0i32; 4]), gpu.alloc(s.batch * 4).unwrap());
    let scratch: Buffer = gpu.alloc(sizes.workspace()).unwrap();
    for r in &ranges {
        let logits = upload(gpu, &part(r.start, r.len()));
        gpu.run(&nodes(&sizes, logits.ptr(), r.clone(), scratch.ptr(), words.ptr()).unwrap()).unwrap();
    }
    gpu.run(&loss(&sizes, losses.ptr(), scratch.ptr()).unwrap()).unwrap();
    let mut grad = vec![0f32; x.len()];
    for r in &ranges {
        // The gradient takes the place of the logits.
        let logits = upload(gpu, &part(r.start, r.len()));
        let p = logits.ptr();
        let launches = gradient(&sizes, p, r.clone(), losses.ptr(), gd.ptr(), bend, p, scratch.ptr()).unwrap();
        gpu.run(&launches).unwrap();
        let found: Vec<f32> = download(&logits, s.batch * r.len() * frame);
        for (b, rows) in found.chunks(r.len() * frame).enumerate() {
            grad[b * s.each() + r.start * frame..][..rows.len()].copy_from_slice(rows);
        }
    }
    let words: Vec<i32> = download(&words, 4);
    Found { losses: download(&losses, s.batch), grad, refused: status::message(words.try_into().unwrap()) }
}

fn cases() -> Vec<Case> {
    let rnnt = Case {
        batch: 5,
        time: 4,
        labels: 3,
        tokens: 5,
        blank: 4,
        durations: vec![],
        sigma: 0.0,
        targets: vec![0, 1, 1, 3, 2, 0, 2, 2, 2, 1, 0, 0, 3, 3, 1],
        lengths: Some([vec![4, 3, 1, 2, 0], vec![3, 0, 2, 1, 1]]),
    };
    let tdt = Case { durations: vec![0, 1, 2, 4], sigma: 0.05, ..rnnt.clone() };
    let uneven = Case { durations: vec![3, 1], sigma: 0.1, blank: 0, lengths: None, ..rnnt.clone() };
    let wide = Case {
        batch: 1,
        time: 3,
        labels: 35,
        tokens: 37,
        blank: 0,
        targets: (0..35).map(|i| i % 36 + 1).collect(),
        lengths: None,
        ..rnnt.clone()
    };
    vec![rnnt, tdt, uneven, wide.clone(), Case { durations: vec![0, 2, 1], time: 4, ..wide }]
}

#[test]
fn losses_and_gradients_of_all_paths() {
    for gpu in devices() {
        for s in cases() {
            let (x, g) = (values(s.batch * s.each(), 1), values(s.batch, 2));
            let found = run(&gpu, &s, &x, &g, Bend::default(), 3);
            assert_eq!(found.refused, None);
            for b in 0..s.batch {
                let mut rows: Vec<f64> = x[b * s.each()..][..s.each()].iter().map(|v| *v as f64).collect();
                let expected = reference(&s, b, &rows);
                let close = |f: f64, e: f64, by: f64| f == e || (f - e).abs() < by * e.abs().max(1.0);
                assert!(close(found.losses[b] as f64, expected, 2e-6), "{b}: {} {expected}", found.losses[b]);
                let step = (s.each() / 200).max(1);
                for i in (0..s.each()).step_by(step) {
                    let was = rows[i];
                    rows[i] = was + 1e-5;
                    let up = reference(&s, b, &rows);
                    rows[i] = was - 1e-5;
                    let d = (up - reference(&s, b, &rows)) / 2e-5;
                    rows[i] = was;
                    let d = if expected.is_finite() { d * g[b] as f64 } else { 0.0 };
                    let f = found.grad[b * s.each() + i] as f64;
                    assert!(close(f, d, 2e-5), "sequence {b}, logit {i}, {:?}: {f} {d}", s.durations);
                }
            }
        }
    }
}

#[test]
fn bent_gradients_are_those_of_warprnnt() {
    // FastEmit adds to the gradient that of the labels' part of the loss once more; clamping comes last.
    for gpu in devices() {
        let s = Case { lengths: None, ..cases().remove(0) };
        let (x, g) = (values(s.batch * s.each(), 1), vec![2.0; s.batch]);
        let plain = run(&gpu, &s, &x, &g, Bend::default(), 4).grad;
        let bend = Bend { fastemit: 0.5, clamp: 0.0 };
        let bent = run(&gpu, &s, &x, &g, bend, 4).grad;
        let clamped = run(&gpu, &s, &x, &g, Bend { clamp: 0.05, ..bend }, 4).grad;
        for (row, ((p, b), c)) in plain.chunks(5).zip(bent.chunks(5)).zip(clamped.chunks(5)).enumerate() {
            // Softmax gradients of a node sum to 0, bent or not.
            assert!(b.iter().sum::<f32>().abs() < 1e-5, "{row}: {b:?}");
            let u = row % 4;
            if u == 3 {
                assert_eq!(p, b, "{row}: no label, nothing to bend");
            } else {
                let label = s.targets[row / 16 * 3 + u] as usize;
                assert!(b[label] <= p[label] + 1e-7, "{row}: {p:?} {b:?}");
            }
            for (b, c) in b.iter().zip(c) {
                assert!((b.clamp(-0.1, 0.1) - c).abs() < 1e-6, "{row}: {b} {c}");
            }
        }
    }
}

#[test]
fn losses_and_gradients_equal_those_of_nemo() {
    for (name, durations, sigma, losses) in [
        ("nemo_fastconformer_rnnt", vec![], 0.0, "loss.per_sample"),
        ("nemo_fastconformer_tdt", vec![0, 1, 2, 3, 4], 0.0, "out.loss_per_sample"),
    ] {
        let Some(folder) = common::golden(name) else { continue };
        let x = common::reals(&folder, "out.joint");
        let targets = common::wholes(&folder, "in.targets");
        let frames = common::wholes(&folder, "out.encoder_length");
        let labels = common::wholes(&folder, "in.target_length");
        let (batch, most) = (frames.len(), targets.len() / frames.len());
        let tokens = 65;
        let time = x.len() / batch / (most + 1) / (tokens + durations.len());
        let s = Case {
            batch,
            time,
            labels: most,
            tokens,
            blank: 64,
            sigma,
            targets,
            lengths: Some([frames, labels]),
            durations: durations.clone(),
        };
        let expected: Vec<f64> = common::reals(&folder, losses).iter().map(|v| *v as f64).collect();
        for gpu in devices() {
            let found = run(&gpu, &s, &x, &vec![1.0; batch], Bend::default(), 5);
            let d = difference(&found.losses, &expected);
            assert!(d < 1e-6, "{name}: {:?} {expected:?}", found.losses);
            if durations.is_empty() {
                let grads = common::reals(&folder, "loss.grad_logits_of_sum");
                let d = difference(&found.grad, &grads.iter().map(|v| *v as f64).collect::<Vec<_>>());
                assert!(d < 2e-5, "{name}: {d}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = cases().remove(0);
    for gpu in devices() {
        let s = Case { targets: vec![7; 15], lengths: None, ..case.clone() };
        let x = values(s.batch * s.each(), 1);
        let refused = run(&gpu, &s, &x, &[1.0; 5], Bend::default(), 4).refused;
        assert!(refused.unwrap().contains("target 7 is not one of 5"));
    }
    let s = Transducer {
        batch: 1,
        time: 2,
        labels: 1,
        tokens: 3,
        blank: 0,
        durations: vec![],
        sigma: 0.0,
        targets: Ptr(256),
        time_lengths: Ptr::NULL,
        label_lengths: Ptr::NULL,
    };
    let refused = |s: Transducer| loss(&s, Ptr(256), Ptr(256)).unwrap_err().to_string();
    assert!(refused(Transducer { blank: 3, ..s.clone() }).contains("blank"));
    assert!(refused(Transducer { durations: vec![0], ..s.clone() }).contains("advance"));
    assert!(refused(Transducer { durations: vec![1; 9], ..s.clone() }).contains("8"));
    assert!(refused(Transducer { time: 1 << 31, ..s }).contains("nodes"));
}
