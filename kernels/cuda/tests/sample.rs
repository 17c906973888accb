//! Sampling: the tokens that the CPU draws.

use mobilis_cuda::sample::sample;
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_cuda::{Gpu, Ptr};
use mobilis_kernels::cpu::sample::{self as cpu, Draw};
use mobilis_kernels::philox::philox4x32;

fn draw(gpu: &Gpu, draws: &[Draw], logits: &[f32], n: usize) -> Vec<i32> {
    let settings: Vec<f32> = draws.iter().flat_map(|d| [d.temperature, d.top_p, d.min_p]).collect();
    let halves = |seed: u64| [seed as u32 as i32, (seed >> 32) as i32];
    let number = |d: &Draw| [d.top_k as i32, halves(d.seed)[0], halves(d.seed)[1], d.sequence as i32, d.step as i32];
    let numbers: Vec<i32> = draws.iter().flat_map(number).collect();
    let (from, settings, numbers) = (upload(gpu, logits), upload(gpu, &settings), upload(gpu, &numbers));
    let to = gpu.alloc(draws.len() * 4).unwrap();
    gpu.run(&sample(from.ptr(), settings.ptr(), numbers.ptr(), to.ptr(), [draws.len(), n]).unwrap()).unwrap();
    download(&to, draws.len())
}

fn on_the_cpu(draws: &[Draw], logits: &[f32], n: usize) -> Vec<i32> {
    let one = |(d, row): (&Draw, &[f32])| match cpu::sample(row, d, &mut vec![]) {
        Ok(Some(id)) => id as i32,
        Ok(None) => -1,
        Err(_) => -2,
    };
    draws.iter().zip(logits.chunks_exact(n)).map(one).collect()
}

const ALL: Draw = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, sequence: 0, step: 0 };

/// Settings of every kind, one after another.
fn settings(i: usize) -> Draw {
    let mut d = Draw { seed: 1 << 40 | 11, sequence: i as u32 % 3, step: i as u64, ..ALL };
    d.temperature = [1.0, 0.7, 1.9, 0.0, 1e-38][i % 5];
    d.top_k = [0, 1, 3, 40, 5000][i / 2 % 5];
    d.top_p = [1.0, 0.9, 0.5, 0.01][i / 3 % 4];
    d.min_p = [0.0, 0.0, 0.1][i / 7 % 3];
    d
}

#[test]
fn tokens_are_those_of_the_cpu() {
    for (at, gpu) in devices().iter().enumerate() {
        for (n, rows) in [(1, 3), (5, 40), (1500, if at == 0 { 16 } else { 4 })] {
            let noise = |i: u32| philox4x32([i, n as u32, 0, 0], [3, 4])[0] as f32 / u32::MAX as f32 * 8.0 - 4.0;
            let mut logits: Vec<f32> = (0..(rows * n) as u32).map(noise).collect();
            // Some are equal, as are those of models with few bits; and some never come.
            logits.iter_mut().step_by(3).for_each(|l| *l = (*l * 2.0).round() / 2.0);
            logits.iter_mut().skip(2).step_by(11).for_each(|l| *l = f32::NEG_INFINITY);
            let draws: Vec<Draw> = (0..rows).map(|i| settings(i + at * 17)).collect();
            let (found, expected) = (draw(gpu, &draws, &logits, n), on_the_cpu(&draws, &logits, n));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_eq!(*found, expected, "row {i} of {n} by {:?}", draws[i]);
            }
        }
    }
}

/// All alike: the first places are the nucleus, and each is drawn.
#[test]
fn places_that_are_alike_are_taken_in_order() {
    for gpu in devices().into_iter().take(1) {
        let draws: Vec<Draw> = (0..60).map(|step| Draw { top_p: 0.5, step, ..ALL }).collect();
        let logits = vec![0.25; 60 * 8];
        let found = draw(&gpu, &draws, &logits, 8);
        assert_eq!(found, on_the_cpu(&draws, &logits, 8));
        assert!((0..4).all(|id| found.contains(&id)) && found.iter().all(|id| *id < 4), "{found:?}");
    }
}

#[test]
fn infinities_and_nan() {
    for gpu in devices() {
        let n = 1500;
        let mut logits = vec![f32::NEG_INFINITY; 6 * n];
        logits[700] = 1.0;
        logits[n + 3] = f32::NAN;
        logits[n + 1400] = -5.0;
        logits[3 * n..].iter_mut().enumerate().for_each(|(i, l)| *l = (i % 7) as f32);
        (logits[3 * n + 40], logits[3 * n + 41]) = (f32::INFINITY, f32::INFINITY);
        logits[4 * n + 9] = f32::INFINITY;
        logits[5 * n + 1499] = f32::NAN;
        let mut draws = [Draw { temperature: 0.7, top_k: 40, top_p: 0.9, ..ALL }; 6];
        draws[5].temperature = 0.0;
        let found = draw(&gpu, &draws, &logits, n);
        assert_eq!(found, on_the_cpu(&draws, &logits, n));
        assert_eq!((found[0], found[1], found[2], found[4], found[5]), (700, -2, -1, 9, -2));
        assert!(sample(Ptr::NULL, Ptr::NULL, Ptr::NULL, Ptr::NULL, [1, 0]).is_err());
        assert!(sample(Ptr::NULL, Ptr::NULL, Ptr::NULL, Ptr::NULL, [0, 5]).unwrap().is_empty());
    }
}
