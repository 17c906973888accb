//! The gradients of the short-time transform: each frame's spectrum is transformed back, many frames
//! at a time as forward.

use super::real::{Layout, join, signal};
use super::stft::{LANES, Stft};
use crate::cpu::parts::Parts;
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::Shape;
use crate::pool::Pool;

impl Stft {
    /// Scratch floats of a thread: the values of a transform, what a pass needs beside them, bins.
    fn back_room(&self) -> [usize; 3] {
        let plan = &self.fourier;
        [plan.values(), plan.spare(), plan.bins()].map(|n| 2 * n * LANES)
    }

    /// Scratch floats of [`stft_input_grad`] on so many threads.
    pub fn back_scratch(&self, threads: usize) -> usize {
        threads * self.back_room().iter().sum::<usize>()
    }

    /// Scratch floats of [`stft_window_grad`].
    pub fn window_scratch(&self) -> usize {
        self.back_scratch(self.sums()) + self.sums() * self.fourier.length()
    }

    /// Sums of the gradient by the window that are made side by side: as many whatever the threads,
    /// for the order of additions must not depend on them.
    fn sums(&self) -> usize {
        self.batch.min(4)
    }

    /// For every frame of spectra `y`, in order, `each(frame, sample, value)` of the signal of which the
    /// spectrum is the gradient: `Re sum over k of y_k exp(2 pi i k n / N)`.
    fn back(&self, level: Level, y: &[f32], scratch: &mut [f32], mut each: impl FnMut(usize, usize, f32)) {
        let (plan, frames, lanes) = (&self.fourier, self.frames.count(), Shape::of(level).lanes);
        let [values, more, _] = self.back_room();
        let (values, rest) = scratch.split_at_mut(values);
        let (more, bins) = rest.split_at_mut(more);
        let at = Layout { row: 2 * lanes, plane: lanes };
        for t in (0..frames).step_by(lanes) {
            let count = lanes.min(frames - t);
            for (k, bin) in bins.chunks_exact_mut(2 * lanes).take(plan.bins()).enumerate() {
                bin.fill(0.0);
                for (l, [re, im]) in y[2 * (k * frames + t)..][..2 * count].as_chunks::<2>().0.iter().enumerate() {
                    (bin[l], bin[lanes + l]) = (*re, *im);
                }
            }
            // SAFETY: the level is the processor's; scratch was measured for the transform.
            unsafe {
                join(level, plan, bins.as_ptr(), at, values.as_mut_ptr());
                plan.complex(level, values.as_mut_ptr(), more.as_mut_ptr());
            }
            for l in 0..count {
                for i in 0..plan.length() {
                    each(t + l, i, values[signal(plan, i, lanes) + l]);
                }
            }
        }
    }
}

/// The gradient by the signal.
///
/// # Panics
/// When a slice is shorter than the transform says; so below.
pub fn stft_input_grad(
    pool: &Pool,
    s: &Stft,
    y: &[f32],
    w: &[f32],
    x: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (frames, room) = (&s.frames, s.back_scratch(1));
    let (spectrum, samples) = (s.fourier.bins() * frames.count() * 2, frames.samples());
    let slots = threads.min(s.batch);
    x.fill(0.0);
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let scratch = unsafe { scratch.get(slot * room, room) };
        for b in (slot..s.batch).step_by(slots) {
            // SAFETY: and distinct signals.
            let x = unsafe { x.get(b * samples, samples) };
            s.back(level(), &y[b * spectrum..][..spectrum], scratch, |t, i, v| {
                if let Some(at) = frames.source(t, i) {
                    x[at] += v * w[i];
                }
            });
        }
    });
}

/// The gradient by the window.
pub fn stft_window_grad(pool: &Pool, s: &Stft, x: &[f32], y: &[f32], w: &mut [f32], scratch: &mut [f32]) {
    let (frames, n) = (&s.frames, s.fourier.length());
    let (spectrum, samples) = (s.fourier.bins() * frames.count() * 2, frames.samples());
    let (slots, room) = (s.sums(), s.back_scratch(1) + n);
    let parts = Parts::new(&mut *scratch);
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (sum, scratch) = unsafe { parts.get(slot * room, room) }.split_at_mut(n);
        sum.fill(0.0);
        for b in (slot..s.batch).step_by(slots) {
            let x = &x[b * samples..][..samples];
            s.back(level(), &y[b * spectrum..][..spectrum], scratch, |t, i, v| {
                sum[i] += frames.source(t, i).map_or(0.0, |at| v * x[at]);
            });
        }
    });
    w.fill(0.0);
    for slot in 0..slots {
        w.iter_mut().zip(&scratch[slot * room..]).for_each(|(w, s)| *w += s);
    }
}
