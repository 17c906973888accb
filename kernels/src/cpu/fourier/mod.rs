//! Fourier transforms of any length and the short-time transform over them ([`Stft`]).
//!
//! Lengths are split into their factors (Cooley and Tukey 1965), so products of small primes such
//! as 400 and 512 are fast, and a prime length costs its square. Many frames at once go through
//! `lanes`; single ones through the recursion here. Two real signals are transformed as the real
//! and the imaginary part of one.

mod lanes;
mod stft;

pub use stft::{Frames, Stft, stft, stft_input_grad, stft_window_grad};

type Complex = [f32; 2];

fn mul(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// A prepared transform of one length.
#[derive(Clone, Debug)]
pub struct Fourier {
    /// `exp(-2 pi i k / n)`
    roots: Vec<Complex>,
    /// Prime factors, ascending.
    factors: Vec<usize>,
    /// Factors of the transform of lanes, and its order of samples.
    wide: Vec<usize>,
    order: Vec<u32>,
}

impl Fourier {
    /// A transform of length `n`.
    pub fn new(n: usize) -> Fourier {
        let root = |k: usize| {
            let angle = -2.0 * std::f64::consts::PI * k as f64 / n as f64;
            [angle.cos() as f32, angle.sin() as f32]
        };
        let (mut factors, mut rest, mut p) = (vec![], n, 2);
        while rest > 1 {
            if p * p > rest {
                p = rest;
            }
            while rest % p == 0 {
                factors.push(p);
                rest /= p;
            }
            p += 1;
        }
        let wide = lanes::factors(n);
        Fourier { roots: (0..n).map(root).collect(), factors, order: lanes::order(&wide), wide }
    }

    /// The length.
    pub fn length(&self) -> usize {
        self.roots.len()
    }

    /// Scratch values that [`run`](Self::run) needs: the largest prime factor, or one.
    fn room(&self) -> usize {
        self.factors.last().copied().unwrap_or(1)
    }

    /// `out[k] = sum over n of x[n] exp(-2 pi i k n / N)`
    fn run(&self, x: &[Complex], out: &mut [Complex], room: &mut [Complex]) {
        self.level(&self.factors, x, 1, out, room);
    }

    /// The transform of every `step`-th value of `x`.
    fn level(&self, factors: &[usize], x: &[Complex], step: usize, out: &mut [Complex], room: &mut [Complex]) {
        let Some((p, rest)) = factors.split_first() else {
            out[0] = x[0];
            return;
        };
        let (p, m) = (*p, out.len() / p);
        for (q, part) in out.chunks_exact_mut(m).enumerate() {
            self.level(rest, &x[q * step..], step * p, part, room);
        }
        if p == 2 {
            let (low, high) = out.split_at_mut(m);
            for k in 0..m {
                let odd = mul(high[k], self.roots[k * step]);
                high[k] = [low[k][0] - odd[0], low[k][1] - odd[1]];
                low[k] = [low[k][0] + odd[0], low[k][1] + odd[1]];
            }
            return;
        }
        let n = self.length();
        for k in 0..m {
            for q in 0..p {
                room[q] = mul(out[k + q * m], self.roots[q * k * step]);
            }
            for r in 0..p {
                let mut sum = room[0];
                let (turn, mut at) = (r * m * step, 0);
                for term in &room[1..p] {
                    at = (at + turn) % n;
                    let t = mul(*term, self.roots[at]);
                    sum = [sum[0] + t[0], sum[1] + t[1]];
                }
                out[k + r * m] = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::levels;
    use crate::cpu::vector::Shape;

    #[test]
    fn every_length_agrees_with_the_definition() {
        for n in (1..=40).chain([49, 60, 97, 100, 128, 400]) {
            let fourier = Fourier::new(n);
            let x: Vec<Complex> = (0..n).map(|i| [(i * 7 % 11) as f32 - 5.0, (i * 5 % 13) as f32 - 6.0]).collect();
            let (mut out, mut room) = (vec![[0.0; 2]; n], vec![[0.0; 2]; fourier.room()]);
            fourier.run(&x, &mut out, &mut room);
            let window: Vec<f32> = (0..n).map(|i| 1.0 + (i % 3) as f32).collect();
            for level in levels() {
                // Lane l holds the signal times l + 1, divided by the window that it is multiplied by.
                let lanes = Shape::of(level).lanes;
                let wide: Vec<f32> = (0..n * 2 * lanes)
                    .map(|i| x[i / (2 * lanes)][i / lanes % 2] * (i % lanes + 1) as f32 / window[i / (2 * lanes)])
                    .collect();
                let (mut found, mut room) = (vec![0.0; wide.len()], vec![0.0; fourier.room() * 2 * lanes]);
                let (from, w) = (wide.as_ptr(), window.as_ptr());
                // SAFETY: all slices have the sizes that the transform asks for.
                unsafe { lanes::transform(level, &fourier, from, w, found.as_mut_ptr(), room.as_mut_ptr()) };
                for (i, found) in found.iter().enumerate() {
                    let want = out[i / (2 * lanes)][i / lanes % 2] * (i % lanes + 1) as f32;
                    let error = (found - want).abs() / (i % lanes + 1) as f32;
                    assert!(error < 4e-6 * 6.0 * n as f32, "{level:?}, length {n}: {found} is not {want}");
                }
            }
            for (k, found) in out.iter().enumerate() {
                let mut sum = [0f64; 2];
                for (i, x) in x.iter().enumerate() {
                    let angle = -2.0 * std::f64::consts::PI * (k * i % n) as f64 / n as f64;
                    let (re, im) = (x[0] as f64, x[1] as f64);
                    sum[0] += re * angle.cos() - im * angle.sin();
                    sum[1] += re * angle.sin() + im * angle.cos();
                }
                let error = (found[0] as f64 - sum[0]).abs().max((found[1] as f64 - sum[1]).abs());
                assert!(error < 2e-6 * 6.0 * n as f64, "length {n}, bin {k}: {found:?} is not {sum:?}");
            }
        }
    }
}
