//! Sampling: what is never drawn, and how often the rest is.

use mobilis_cuda::sample::{Sampling, sample};
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_cuda::{Gpu, Ptr};

fn draw(gpu: &Gpu, s: Sampling, logits: &[f32], n: usize, step: i32) -> Vec<i32> {
    let rows = logits.len() / n;
    let (from, key, to) = (upload(gpu, logits), upload(gpu, &[3, step]), gpu.alloc(rows * 4).unwrap());
    gpu.run(&sample(s, from.ptr(), key.ptr(), to.ptr(), rows, n).unwrap()).unwrap();
    download(&to, rows)
}

#[test]
fn only_what_is_kept_is_drawn_and_as_often_as_it_should() {
    let p = [0.4f64, 0.05, 0.3, 0.0, 0.15, 0.1];
    let row: Vec<f32> = p.iter().map(|p| p.ln() as f32 + 2.0).collect();
    for gpu in devices().into_iter().take(1) {
        let rows = 60;
        let logits = row.repeat(rows);
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, stream: 5 };
        for (s, kept) in [
            (all, vec![0, 1, 2, 4, 5]),
            (Sampling { top_k: 3, ..all }, vec![0, 2, 4]),
            (Sampling { top_k: 1, ..all }, vec![0]),
            // 0.4 + 0.3 is 0.7: the third is needed for more.
            (Sampling { top_p: 0.71, ..all }, vec![0, 2, 4]),
            (Sampling { top_p: 0.69, ..all }, vec![0, 2]),
            (Sampling { top_p: 0.01, ..all }, vec![0]),
            // Of the three largest, which make up 0.85, 0.4 and 0.3 are 0.82.
            (Sampling { top_k: 3, top_p: 0.8, ..all }, vec![0, 2]),
            (Sampling { temperature: 0.0, ..all }, vec![0]),
            (Sampling { temperature: 0.5, ..all }, vec![0, 1, 2, 4, 5]),
        ] {
            let tokens = draw(&gpu, s, &logits, 6, 1);
            let weight = |i: usize| p[i].powf(1.0 / if s.temperature == 0.0 { 1.0 } else { s.temperature as f64 });
            let mass: f64 = kept.iter().map(|i| weight(*i)).sum();
            for i in 0..6 {
                let found = tokens.iter().filter(|t| **t as usize == i).count() as f64;
                let q = if kept.contains(&i) { weight(i) / mass } else { 0.0 };
                let error = 4.5 * (rows as f64 * q * (1.0 - q)).sqrt();
                assert!((found - rows as f64 * q).abs() <= error, "{s:?}: {found} of {i}, {}", rows as f64 * q);
            }
        }
    }
}

#[test]
fn long_rows_infinities_and_nan() {
    for gpu in devices() {
        let n = 1500;
        let mut logits = vec![f32::NEG_INFINITY; 3 * n];
        logits[700] = 1.0;
        logits[n + 3] = f32::NAN;
        logits[n + 1400] = -5.0;
        logits[2 * n..].fill(f32::NAN);
        let s = Sampling { temperature: 0.7, top_k: 40, top_p: 0.9, stream: 0 };
        let tokens = draw(&gpu, s, &logits, n, 2);
        assert_eq!((tokens[0], tokens[1], tokens[2]), (700, 1400, 0));
        let wrong = Sampling { temperature: -1.0, top_k: 0, top_p: 1.0, stream: 0 };
        assert!(sample(wrong, Ptr::NULL, Ptr::NULL, Ptr::NULL, 1, 4).is_err());
    }
}
