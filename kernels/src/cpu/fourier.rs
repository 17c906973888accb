//! Fourier transforms of any length and the short-time transform over them.
//!
//! Lengths are split into their prime factors (Cooley and Tukey 1965), so products of small
//! primes such as 400 and 512 are fast, and a prime length costs its square. Frames are
//! transformed two at a time, as the real and the imaginary part of one signal.

use super::parts::Parts;
use crate::pool::Pool;

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
        Fourier { roots: (0..n).map(root).collect(), factors }
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

/// A short-time transform: `x[batch, samples] <-> y[batch, bins, frames, 2]`.
#[derive(Clone, Debug)]
pub struct Stft {
    /// The transform of a frame.
    pub fourier: Fourier,
    /// Signals.
    pub batch: usize,
    /// Samples of each.
    pub samples: usize,
    /// Frames of each.
    pub frames: usize,
    /// For each frame and place in it the sample there; -1 for a zero.
    pub sources: Vec<i32>,
}

impl Stft {
    fn bins(&self) -> usize {
        self.fourier.length() / 2 + 1
    }

    /// Complex values that one thread works on: a frame, its transform, and room.
    fn room(&self) -> usize {
        2 * self.fourier.length() + self.fourier.room()
    }

    /// Scratch floats on so many threads.
    pub fn scratch(&self, threads: usize) -> usize {
        2 * threads * self.room()
    }

    /// Scratch floats of [`stft_window_grad`].
    pub fn window_scratch(&self, threads: usize) -> usize {
        self.scratch(threads) + threads * self.fourier.length()
    }

    fn source(&self, frame: usize, n: usize) -> Option<usize> {
        usize::try_from(self.sources[frame * self.fourier.length() + n]).ok()
    }

    /// Splits one thread's scratch into frame, transform and room.
    fn split<'s>(&self, scratch: &'s mut [f32]) -> (&'s mut [Complex], &'s mut [Complex], &'s mut [Complex]) {
        let n = self.fourier.length();
        let (frame, rest) = scratch.as_chunks_mut::<2>().0.split_at_mut(n);
        let (out, room) = rest.split_at_mut(n);
        (frame, out, room)
    }

    /// The real signals of which frames `t` and `t + 1` of spectrum `y` are the gradients, as
    /// real and imaginary parts: `sum over k of Re(y_k exp(2 pi i k n / N))`, conjugated.
    fn back<'s>(&self, y: &[f32], t: usize, scratch: &'s mut [f32]) -> &'s [Complex] {
        let (n, bins) = (self.fourier.length(), self.bins());
        let (frame, out, room) = self.split(scratch);
        frame.fill([0.0; 2]);
        let at = |k: usize, t: usize| {
            if t < self.frames { [y[2 * (k * self.frames + t)], y[2 * (k * self.frames + t) + 1]] } else { [0.0; 2] }
        };
        for k in 0..bins {
            let (a, b) = (at(k, t), at(k, t + 1));
            // Half to the bin and half, conjugated, to its mirror image make each signal real;
            // a + i b puts the second signal in the imaginary part. Conjugated, so that the
            // forward transform is the inverse one.
            let (half, mirror) = ([0.5 * (a[0] - b[1]), -0.5 * (a[1] + b[0])], (n - k) % n);
            let other = [0.5 * (a[0] + b[1]), -0.5 * (b[0] - a[1])];
            frame[k] = [frame[k][0] + half[0], frame[k][1] + half[1]];
            frame[mirror] = [frame[mirror][0] + other[0], frame[mirror][1] + other[1]];
        }
        self.fourier.run(frame, out, room);
        out
    }
}

/// The transform of windowed frames.
pub fn stft(pool: &Pool, s: &Stft, x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32], threads: usize) {
    let (n, bins, pairs) = (s.fourier.length(), s.bins(), s.frames.div_ceil(2));
    let (y, scratch, room) = (Parts::new(y), Parts::new(scratch), 2 * s.room());
    let tasks = s.batch * pairs;
    let slots = threads.min(tasks);
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (frame, out, spare) = s.split(unsafe { scratch.get(slot * room, room) });
        for task in (slot..tasks).step_by(slots) {
            let (b, t) = (task / pairs, 2 * (task % pairs));
            let x = &x[b * s.samples..][..s.samples];
            let sample = |t: usize, i: usize| match s.source(t, i) {
                Some(at) if t < s.frames => x[at] * w[i],
                _ => 0.0,
            };
            for (i, v) in frame.iter_mut().enumerate() {
                *v = [sample(t, i), if t + 1 < s.frames { sample(t + 1, i) } else { 0.0 }];
            }
            s.fourier.run(frame, out, spare);
            for k in 0..bins {
                // The spectrum of the real part is the half that mirrors as a conjugate.
                let (z, m) = (out[k], out[(n - k) % n]);
                let first = [0.5 * (z[0] + m[0]), 0.5 * (z[1] - m[1])];
                let second = [0.5 * (z[1] + m[1]), 0.5 * (m[0] - z[0])];
                let place = ((b * bins + k) * s.frames + t) * 2;
                // SAFETY: tasks have distinct frames.
                unsafe { y.get(place, 2) }.copy_from_slice(&first);
                if t + 1 < s.frames {
                    // SAFETY: as above.
                    unsafe { y.get(place + 2, 2) }.copy_from_slice(&second);
                }
            }
        }
    });
}

/// The gradient by the signal.
pub fn stft_input_grad(
    pool: &Pool,
    s: &Stft,
    y: &[f32],
    w: &[f32],
    x: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (spectrum, room) = (s.bins() * s.frames * 2, 2 * s.room());
    let slots = threads.min(s.batch);
    x.fill(0.0);
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let scratch = unsafe { scratch.get(slot * room, room) };
        for b in (slot..s.batch).step_by(slots) {
            // SAFETY: and distinct signals.
            let x = unsafe { x.get(b * s.samples, s.samples) };
            for t in (0..s.frames).step_by(2) {
                let back = s.back(&y[b * spectrum..][..spectrum], t, scratch);
                for (i, v) in back.iter().enumerate() {
                    if let Some(at) = s.source(t, i) {
                        x[at] += v[0] * w[i];
                    }
                    // The transform was conjugated, and with it the second signal.
                    if t + 1 < s.frames
                        && let Some(at) = s.source(t + 1, i)
                    {
                        x[at] -= v[1] * w[i];
                    }
                }
            }
        }
    });
}

/// The gradient by the window.
pub fn stft_window_grad(
    pool: &Pool,
    s: &Stft,
    x: &[f32],
    y: &[f32],
    w: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (spectrum, n) = (s.bins() * s.frames * 2, s.fourier.length());
    let (slots, room) = (threads.min(s.batch), 2 * s.room() + n);
    let parts = Parts::new(&mut *scratch);
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (sum, scratch) = unsafe { parts.get(slot * room, room) }.split_at_mut(n);
        sum.fill(0.0);
        for b in (slot..s.batch).step_by(slots) {
            let x = &x[b * s.samples..][..s.samples];
            for t in (0..s.frames).step_by(2) {
                let back = s.back(&y[b * spectrum..][..spectrum], t, scratch);
                for (i, (sum, v)) in sum.iter_mut().zip(back).enumerate() {
                    *sum += s.source(t, i).map_or(0.0, |at| v[0] * x[at]);
                    if t + 1 < s.frames {
                        *sum -= s.source(t + 1, i).map_or(0.0, |at| v[1] * x[at]);
                    }
                }
            }
        }
    });
    w.fill(0.0);
    for slot in 0..slots {
        w.iter_mut().zip(&scratch[slot * room..]).for_each(|(w, s)| *w += s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_agrees_with_the_definition() {
        for n in (1..=40).chain([49, 60, 97, 100, 128, 400]) {
            let fourier = Fourier::new(n);
            let x: Vec<Complex> = (0..n).map(|i| [(i * 7 % 11) as f32 - 5.0, (i * 5 % 13) as f32 - 6.0]).collect();
            let (mut out, mut room) = (vec![[0.0; 2]; n], vec![[0.0; 2]; fourier.room()]);
            fourier.run(&x, &mut out, &mut room);
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
