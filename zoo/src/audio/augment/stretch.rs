//! Duration without pitch, and convolution: what needs Fourier transforms of a whole recording.

use realfft::RealFftPlanner;
use realfft::num_complex::Complex32;
use std::f64::consts::{PI, TAU};

/// A recording that lasts `1 / rate` as long at the same pitch: a phase vocoder (Flanagan and Golden 1966;
/// `librosa.effects.time_stretch` with `n_fft`). `n_fft` is a power of two.
pub(super) fn time_stretch(samples: &[f32], rate: f64, n_fft: usize) -> Vec<f32> {
    let (hop, bins) = (n_fft / 4, n_fft / 2 + 1);
    let length = (samples.len() as f64 / rate).round() as usize;
    if samples.is_empty() {
        return Vec::new();
    }
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, backward) = (planner.plan_fft_forward(n_fft), planner.plan_fft_inverse(n_fft));
    let window: Vec<f32> = (0..n_fft).map(|n| (0.5 - 0.5 * (TAU * n as f64 / n_fft as f64).cos()) as f32).collect();
    // Frames are centred; beyond the ends is silence.
    let frames = samples.len() / hop + 1;
    let spectrum = |t: usize| -> Vec<Complex32> {
        let mut out = vec![Complex32::default(); bins];
        if t >= frames {
            return out;
        }
        let at = |n: usize| (t * hop + n).checked_sub(n_fft / 2).and_then(|i| samples.get(i)).copied().unwrap_or(0.0);
        let mut frame: Vec<f32> = (0..n_fft).map(|n| at(n) * window[n]).collect();
        forward.process(&mut frame, &mut out).expect("buffers have the transform's sizes");
        out
    };
    let made = (frames as f64 / rate).ceil() as usize;
    let advance: Vec<f64> = (0..bins).map(|k| PI * hop as f64 * k as f64 / (bins - 1) as f64).collect();
    let mut phase: Vec<f64> = spectrum(0).iter().map(|c| f64::from(c.arg())).collect();
    let (mut out, mut weight) = (vec![0.0f32; made * hop + n_fft], vec![0.0f32; made * hop + n_fft]);
    let mut held: Option<(usize, Vec<Complex32>, Vec<Complex32>)> = None;
    for step in 0..made {
        let time = step as f64 * rate;
        let (t, share) = (time as usize, time.fract());
        let (left, right) = match held.take() {
            Some((at, left, right)) if at == t => (left, right),
            Some((at, _, right)) if at + 1 == t => (right, spectrum(t + 1)),
            _ => (spectrum(t), spectrum(t + 1)),
        };
        let mut mixed: Vec<Complex32> = (0..bins)
            .map(|k| {
                let size = (1.0 - share) * f64::from(left[k].norm()) + share * f64::from(right[k].norm());
                Complex32::from_polar(size as f32, phase[k] as f32)
            })
            .collect();
        for k in 0..bins {
            // How far the phase went beyond what the bin's own frequency explains.
            let more = f64::from(right[k].arg()) - f64::from(left[k].arg()) - advance[k];
            phase[k] = (phase[k] + advance[k] + more - TAU * (more / TAU).round()) % TAU;
        }
        // Of a real signal the first and the last bin are real.
        (mixed[0].im, mixed[bins - 1].im) = (0.0, 0.0);
        let mut frame = vec![0.0; n_fft];
        backward.process(&mut mixed, &mut frame).expect("buffers have the transform's sizes");
        for (n, v) in frame.iter().enumerate() {
            out[step * hop + n] += v * window[n] / n_fft as f32;
            weight[step * hop + n] += window[n] * window[n];
        }
        held = Some((t, left, right));
    }
    let start = n_fft / 2;
    (0..length)
        .map(|i| match (out.get(start + i), weight.get(start + i)) {
            (Some(v), Some(w)) if *w > 1e-6 => v / w,
            _ => 0.0,
        })
        .collect()
}

/// `x * h`, of `x.len() + h.len() - 1` samples, block by block.
pub(super) fn convolve(x: &[f32], h: &[f32]) -> Vec<f32> {
    if x.is_empty() || h.is_empty() {
        return Vec::new();
    }
    let size = (2 * h.len()).next_power_of_two().max(1024);
    let block = size - h.len() + 1;
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, backward) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
    let transform = |values: &[f32]| {
        let mut padded = vec![0.0; size];
        padded[..values.len()].copy_from_slice(values);
        let mut out = forward.make_output_vec();
        forward.process(&mut padded, &mut out).expect("buffers have the transform's sizes");
        out
    };
    let filter = transform(h);
    let mut out = vec![0.0; x.len() + h.len() - 1];
    for (i, part) in x.chunks(block).enumerate() {
        let mut product: Vec<Complex32> = transform(part).iter().zip(&filter).map(|(a, b)| a * b).collect();
        let last = product.len() - 1;
        (product[0].im, product[last].im) = (0.0, 0.0);
        let mut values = vec![0.0; size];
        backward.process(&mut product, &mut values).expect("buffers have the transform's sizes");
        for (o, v) in out[i * block..].iter_mut().zip(&values[..part.len() + h.len() - 1]) {
            *o += v / size as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_are_sums_of_products() {
        for (n, m) in [(1, 1), (5, 3), (3_000, 7), (40, 900), (2_500, 600)] {
            let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
            let (x, h): (Vec<f32>, Vec<f32>) = ((0..n).map(value).collect(), (0..m).map(|i| value(i + 3)).collect());
            let found = convolve(&x, &h);
            assert_eq!(found.len(), n + m - 1);
            for i in (0..found.len()).step_by(17) {
                let low = i.saturating_sub(m - 1);
                let expected: f64 = (low..=i.min(n - 1)).map(|j| f64::from(x[j]) * f64::from(h[i - j])).sum();
                assert!((f64::from(found[i]) - expected).abs() < 1e-3, "{n} {m} {i}");
            }
        }
    }

    #[test]
    fn stretching_keeps_the_pitch() {
        let sine: Vec<f32> = (0..16_000).map(|i| (TAU * 440.0 * f64::from(i) / 16_000.0).sin() as f32).collect();
        for rate in [0.8, 1.0, 1.25] {
            let y = time_stretch(&sine, rate, 512);
            assert_eq!(y.len(), (16_000.0 / rate).round() as usize);
            let middle = &y[2_000..y.len() - 2_000];
            let crossings = middle.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
            let hertz = crossings as f64 * 16_000.0 / middle.len() as f64;
            assert!((hertz - 440.0).abs() < 3.0, "{hertz} Hz at {rate}");
            let loud = middle.iter().map(|v| v * v).sum::<f32>() / middle.len() as f32;
            assert!((loud - 0.5).abs() < 0.1, "{loud} at {rate}");
        }
        let same = time_stretch(&sine, 1.0, 512);
        assert!(same.iter().zip(&sine).skip(600).take(14_000).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!(time_stretch(&[], 1.1, 512).is_empty());
        assert_eq!(time_stretch(&[0.5], 0.5, 512).len(), 2);
    }
}
