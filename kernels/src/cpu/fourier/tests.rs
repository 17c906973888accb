//! The transforms against their definitions in double precision.

use super::stft::stft_at;
use super::*;
use crate::cpu::bands::Bands;
use crate::cpu::simd::{Level, level, levels};
use crate::pool::Pool;

fn noise(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| {
            let x = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
            (x ^ (x >> 16)) as f32 / u32::MAX as f32 - 0.5
        })
        .collect()
}

/// `exp(-2 pi i k / n)`
fn roots(n: usize) -> Vec<[f64; 2]> {
    let angle = |k: usize| -2.0 * std::f64::consts::PI * k as f64 / n as f64;
    (0..n).map(|k| [angle(k).cos(), angle(k).sin()]).collect()
}

/// Signals mirrored at their first sample and 0 behind the last.
fn plan(n: usize, (batch, samples): (usize, usize), (count, hop, pad): (usize, usize, usize), output: Output) -> Stft {
    let mirrored = move |p: usize| pad.checked_sub(p).filter(|at| *at < samples);
    let frames = Frames::new((samples, n), (count, hop, pad), mirrored);
    Stft { fourier: Fourier::new(n), batch, frames, output }
}

fn run(level: Level, threads: usize, s: &Stft, x: &[f32], w: &[f32], size: usize) -> Vec<f32> {
    let (mut y, mut scratch) = (vec![f32::NAN; size], vec![f32::NAN; s.scratch(threads)]);
    stft_at(level, &Pool::new(threads), s, x, w, &mut y, &mut scratch, threads);
    y
}

#[test]
fn every_length_agrees_with_the_definition() {
    for n in 1..=1024 {
        let (x, w, roots) = (noise(n, 1), noise(n, 2), roots(n));
        let s = plan(n, (1, n), (1, 1, 0), Output::Parts);
        for level in levels().filter(|l| n < 200 || *l == level()) {
            let y = run(level, 1, &s, &x, &w, 2 * s.fourier.bins());
            for (k, found) in y.as_chunks::<2>().0.iter().enumerate() {
                let mut sum = [0f64; 2];
                for i in 0..n {
                    let (v, [re, im]) = (x[i] as f64 * w[i] as f64, roots[k * i % n]);
                    sum = [sum[0] + v * re, sum[1] + v * im];
                }
                let error = (found[0] as f64 - sum[0]).abs().max((found[1] as f64 - sum[1]).abs());
                assert!(error < 3e-8 * n as f64, "{level:?}, length {n}, bin {k}: {found:?} is not {sum:?}");
            }
        }
    }
}

#[test]
fn hops_edges_and_batches_agree_with_the_definition() {
    // Hops that divide the length, do not, are longer, are 1; signals shorter than a frame; blocks and more.
    let cases = [
        (8, 3, 300, 97, 4),
        (12, 4, 40, 11, 0),
        (9, 20, 90, 5, 7),
        (16, 1, 100, 110, 9),
        (20, 5, 6, 5, 20),
        (1, 2, 9, 5, 0),
        (7, 7, 0, 3, 2),
    ];
    for (n, hop, samples, count, pad) in cases {
        let (batch, w) = (3, noise(n, 3));
        let (x, roots) = (noise(batch * samples, 4), roots(n));
        let s = plan(n, (batch, samples), (count, hop, pad), Output::Parts);
        let bins = s.fourier.bins();
        for level in levels() {
            let y = run(level, 2, &s, &x, &w, 2 * batch * bins * count);
            for (at, found) in y.as_chunks::<2>().0.iter().enumerate() {
                let (b, k, t) = (at / (bins * count), at / count % bins, at % count);
                let mut sum = [0f64; 2];
                for i in 0..n {
                    let place = t * hop + i;
                    let sample = match place.checked_sub(pad) {
                        None => pad - place,
                        Some(at) => at,
                    };
                    let v = if sample < samples { x[b * samples + sample] as f64 * w[i] as f64 } else { 0.0 };
                    sum = [sum[0] + v * roots[k * i % n][0], sum[1] + v * roots[k * i % n][1]];
                }
                let error = (found[0] as f64 - sum[0]).abs().max((found[1] as f64 - sum[1]).abs());
                assert!(error < 1e-5, "{level:?}, {n} by {hop}, bin {k} of frame {t}: {found:?} is not {sum:?}");
            }
        }
    }
}

#[test]
fn a_frame_is_the_same_in_any_company() {
    for (n, hop) in [(400, 160), (512, 160), (60, 25), (75, 10)] {
        let (count, w) = (150, noise(n, 5));
        let samples = (count - 1) * hop + n;
        let x = noise(samples, 6);
        let s = plan(n, (1, samples), (count, hop, 0), Output::Power);
        let bins = s.fourier.bins();
        for level in levels() {
            let all = run(level, 2, &s, &x, &w, bins * count);
            for t in [0, 1, 15, 63, 64, 127, 149] {
                let alone = plan(n, (1, n), (1, hop, 0), Output::Power);
                let one = run(level, 1, &alone, &x[t * hop..][..n], &w, bins);
                let there: Vec<f32> = (0..bins).map(|k| all[k * count + t]).collect();
                assert!(one.iter().zip(&there).all(|(a, b)| a.to_bits() == b.to_bits()), "{level:?}, {n}, frame {t}");
            }
        }
    }
}

#[test]
fn powers_are_squares_and_filters_see_them() {
    let (n, batch, samples, count) = (40, 2, 500, 70);
    let (x, w) = (noise(batch * samples, 7), noise(n, 8));
    let place = (count, 7, 5);
    let filters: Vec<f32> =
        (0..3 * 21).map(|i| if i % 21 / 7 == i / 21 { 1.0 + (i % 5) as f32 } else { 0.0 }).collect();
    for level in levels() {
        let parts = run(level, 1, &plan(n, (batch, samples), place, Output::Parts), &x, &w, 2 * batch * 21 * count);
        let power = run(level, 1, &plan(n, (batch, samples), place, Output::Power), &x, &w, batch * 21 * count);
        for (p, [re, im]) in power.iter().zip(parts.as_chunks::<2>().0) {
            assert!((p - (re * re + im * im)).abs() <= 1e-6 * p, "{level:?}: {p} of {re} and {im}");
        }
        let bank = Output::Filtered(Bands::new(&filters, (3, 21), (21, 1)));
        let y = run(level, 2, &plan(n, (batch, samples), place, bank), &x, &w, batch * 3 * count);
        for (i, found) in y.iter().enumerate() {
            let (b, r, t) = (i / (3 * count), i / count % 3, i % count);
            let want: f32 = (0..21).map(|k| filters[r * 21 + k] * power[(b * 21 + k) * count + t]).sum();
            assert!((found - want).abs() <= 1e-5 * want, "{level:?}: {found} is not {want}");
        }
    }
}

#[test]
fn gradients_agree_with_the_definition() {
    for (n, hop, count, pad) in
        [(8, 3, 21, 4), (9, 4, 17, 3), (1, 1, 5, 0), (2, 3, 40, 1), (30, 7, 5, 10), (22, 30, 3, 0)]
    {
        let (batch, samples) = (5, (count - 1) * hop + n - pad);
        let s = plan(n, (batch, samples), (count, hop, pad), Output::Parts);
        let (bins, roots) = (s.fourier.bins(), roots(n));
        let (x, w, y) = (noise(batch * samples, 9), noise(n, 10), noise(2 * batch * bins * count, 11));
        let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; n]);
        for (at, [re, im]) in y.as_chunks::<2>().0.iter().enumerate() {
            let (b, k, t) = (at / (bins * count), at / count % bins, at % count);
            for i in 0..n {
                if let Some(sample) = s.frames.source(t, i) {
                    let v = *re as f64 * roots[k * i % n][0] + *im as f64 * roots[k * i % n][1];
                    dx[b * samples + sample] += v * w[i] as f64;
                    dw[i] += v * x[b * samples + sample] as f64;
                }
            }
        }
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let (mut found, mut scratch) = (vec![f32::NAN; x.len()], vec![f32::NAN; s.back_scratch(threads)]);
            stft_input_grad(&pool, &s, &y, &w, &mut found, &mut scratch, threads);
            let near = |a: &f32, b: &f64| (*a as f64 - b).abs() < 1e-4;
            assert!(found.iter().zip(&dx).all(|(a, b)| near(a, b)), "length {n}: {found:?} is not {dx:?}");
            let (mut found, mut scratch) = (vec![f32::NAN; n], vec![f32::NAN; s.window_scratch()]);
            stft_window_grad(&pool, &s, &x, &y, &mut found, &mut scratch);
            assert!(found.iter().zip(&dw).all(|(a, b)| near(a, b)), "length {n}: {found:?} is not {dw:?}");
        }
    }
}
