//! Short-time Fourier transforms on the emulator, and on the GPU where there is one.

use mobilis_cuda::stft::{Stft, input_grad, stft, window_grad};
use mobilis_cuda::testing::{devices, difference, download, upload, values};

fn case(signals: usize, samples: usize, window: usize, hop: usize, pad: usize, reflect: bool) -> Stft {
    let frames = (samples + 2 * pad - window) / hop + 1;
    Stft { signals, samples, window, frames, hop, pad, reflect }
}

/// Powers of two, mixed factors, primes, one; mirrored over and over; fewer frames than a block has, and more.
fn cases() -> Vec<Stft> {
    vec![
        case(2, 50, 16, 4, 8, true),
        case(1, 40, 12, 5, 0, false),
        case(1, 33, 30, 7, 15, true),
        case(2, 30, 13, 3, 6, false),
        case(1, 3, 8, 2, 9, true),
        case(1, 1, 4, 1, 3, true),
        case(3, 5, 1, 2, 0, false),
        case(1, 90, 64, 13, 32, true),
    ]
}

/// The sample at a place of the padded signal: the op set's rule.
fn source(s: &Stft, t: usize, n: usize) -> Option<usize> {
    let at = (t * s.hop + n) as i64 - s.pad as i64;
    if (0..s.samples as i64).contains(&at) {
        return Some(at as usize);
    }
    if !s.reflect || s.samples == 0 {
        return None;
    }
    let period = 2 * (s.samples as i64 - 1);
    let folded = if period == 0 { 0 } else { at.rem_euclid(period) };
    Some(folded.min(period - folded) as usize)
}

/// Calls `f` with the places in signals, window and spectra (real part) of every product, and its two factors.
fn terms(s: &Stft, mut f: impl FnMut(usize, usize, usize, f64, f64)) {
    let bins = s.window / 2 + 1;
    for b in 0..s.signals {
        for (k, t) in (0..bins).flat_map(|k| (0..s.frames).map(move |t| (k, t))) {
            for n in 0..s.window {
                if let Some(at) = source(s, t, n) {
                    let angle = -2.0 * std::f64::consts::PI * ((k * n) % s.window) as f64 / s.window as f64;
                    f(b * s.samples + at, n, ((b * bins + k) * s.frames + t) * 2, angle.cos(), angle.sin());
                }
            }
        }
    }
}

fn check(cases: &[Stft], tolerance: f64) {
    for gpu in devices() {
        for s in cases {
            let (n, m) = (s.signals * s.samples, s.signals * (s.window / 2 + 1) * s.frames * 2);
            let (x, w, g) = (values(n, 1), values(s.window, 2), values(m, 3));
            let (mut y, mut dx, mut dw) = (vec![0f64; m], vec![0f64; n], vec![0f64; s.window]);
            terms(s, |xi, wi, yi, re, im| {
                let both = g[yi] as f64 * re + g[yi + 1] as f64 * im;
                y[yi] += x[xi] as f64 * w[wi] as f64 * re;
                y[yi + 1] += x[xi] as f64 * w[wi] as f64 * im;
                dx[xi] += w[wi] as f64 * both;
                dw[wi] += x[xi] as f64 * both;
            });
            let power: Vec<f64> = y.chunks(2).map(|v| v[0] * v[0] + v[1] * v[1]).collect();
            let (xd, wd, gd) = (upload(&gpu, &x), upload(&gpu, &w), upload(&gpu, &g));
            let scratch = gpu.alloc(s.window_grad_workspace().max(s.input_grad_workspace())).unwrap();
            let [yd, pd, dxd, dwd] = [m, m / 2, n, s.window].map(|n| gpu.alloc(n * 4).unwrap());
            let scratch = scratch.ptr();
            gpu.run(&stft(s, false, xd.ptr(), wd.ptr(), yd.ptr()).unwrap()).unwrap();
            gpu.run(&stft(s, true, xd.ptr(), wd.ptr(), pd.ptr()).unwrap()).unwrap();
            gpu.run(&input_grad(s, gd.ptr(), wd.ptr(), dxd.ptr(), scratch).unwrap()).unwrap();
            gpu.run(&window_grad(s, xd.ptr(), gd.ptr(), dwd.ptr(), scratch).unwrap()).unwrap();
            for (what, found, expected) in
                [("spectra", &yd, &y), ("power", &pd, &power), ("signal", &dxd, &dx), ("window", &dwd, &dw)]
            {
                let d = difference(&download(found, expected.len()), expected);
                assert!(d < tolerance, "{s:?}: {what}: {d}");
            }
        }
    }
}

#[test]
fn transforms_and_gradients_of_all_factors() {
    // The gradient of a signal of one sample is one sum, of terms that almost cancel.
    check(&cases(), 3e-6);
}

#[test]
fn windows_beyond_shared_memory_go_term_by_term() {
    // Few frames and only bins of small sums matter here; the window is one longer than what is held.
    let long = Stft { signals: 1, samples: 20, window: 6827, frames: 1, hop: 7000, pad: 0, reflect: false };
    for gpu in devices() {
        let (x, w) = (values(20, 1), values(6827, 2));
        let bins = 6827 / 2 + 1;
        let (xd, wd, yd) = (upload(&gpu, &x), upload(&gpu, &w), gpu.alloc(bins * 8).unwrap());
        // Beyond the signal there are zeros: 20 terms a bin.
        let s = Stft { samples: 20, ..long };
        gpu.run(&stft(&s, false, xd.ptr(), wd.ptr(), yd.ptr()).unwrap()).unwrap();
        let mut y = vec![0f64; bins * 2];
        for (k, n) in (0..bins).flat_map(|k| (0..20).map(move |n| (k, n))) {
            let angle = -2.0 * std::f64::consts::PI * ((k * n) % 6827) as f64 / 6827.0;
            y[2 * k] += x[n] as f64 * w[n] as f64 * angle.cos();
            y[2 * k + 1] += x[n] as f64 * w[n] as f64 * angle.sin();
        }
        let d = difference(&download(&yd, bins * 2), &y);
        assert!(d < 1e-6, "{d}");
        if gpu.info().emulated {
            break; // 23 million terms: one schedule says it all
        }
    }
}

#[test]
fn no_frames_give_no_gradient() {
    for gpu in devices() {
        let s = Stft { signals: 1, samples: 3, window: 4, frames: 0, hop: 1, pad: 0, reflect: true };
        let [x, w] = [3, 4].map(|n| gpu.alloc(n * 4).unwrap());
        let p = x.ptr();
        gpu.run(&input_grad(&s, p, w.ptr(), p, p).unwrap()).unwrap();
        assert_eq!(download::<f32>(&x, 3), [0.0; 3]);
        gpu.run(&window_grad(&s, p, p, w.ptr(), p).unwrap()).unwrap();
        assert_eq!(download::<f32>(&w, 4), [0.0; 4]);
        assert!(stft(&Stft { hop: 0, ..s }, false, p, p, p).is_err());
    }
}
