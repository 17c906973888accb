//! The short-time transform and its gradients.
//!
//! Forward, a block of frames is transposed so that each lane of a vector holds one frame, and
//! goes through [`super::lanes`] while it is in cache; frames are never laid out in memory. Frames
//! within the signal are found by arithmetic, only those at its ends by a table.

use super::{Complex, Fourier, lanes};
use crate::cpu::pack::panels;
use crate::cpu::parts::Parts;
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::Shape;
use crate::pool::Pool;

/// The longest vector.
const LANES: usize = 16;

/// A short-time transform: `x[batch, samples] <-> y[batch, bins, frames, 2]`.
#[derive(Clone, Debug)]
pub struct Stft {
    /// The transform of a frame.
    pub fourier: Fourier,
    /// Signals.
    pub batch: usize,
    /// Samples of each.
    pub samples: usize,
    /// Where frames lie.
    pub frames: Frames,
    /// The result is the squared magnitude `[batch, bins, frames]`.
    pub power: bool,
}

/// The frames of a signal.
#[derive(Clone, Debug)]
pub struct Frames {
    /// How many.
    pub count: usize,
    /// Samples between their starts.
    pub hop: usize,
    /// Places of the first frame before the signal.
    pub pad: usize,
    /// The frames that lie within the signal.
    pub inside: std::ops::Range<usize>,
    /// For each place of each other frame the sample there; -1 for a zero.
    pub edges: Vec<i32>,
}

impl Frames {
    /// The frames of `n` places of a signal; `source` gives the sample at a place of a frame that is
    /// not inside.
    pub fn new(
        (samples, n): (usize, usize),
        (count, hop, pad): (usize, usize, usize),
        source: impl Fn(usize, usize) -> Option<usize>,
    ) -> Frames {
        let first = pad.div_ceil(hop.max(1)).min(count);
        let whole = (samples + pad).checked_sub(n).map_or(0, |last| last / hop.max(1) + 1);
        let inside = first..whole.clamp(first, count);
        let outside = (0..first).chain(inside.end..count);
        let places = outside.flat_map(|t| (0..n).map(move |i| (t, i)));
        let edges = places.map(|(t, i)| source(t, i).map_or(-1, |at| at as i32)).collect();
        Frames { count, hop, pad, inside, edges }
    }

    /// The sample at place `i` of frame `t`, one of `n`.
    fn source(&self, t: usize, i: usize, n: usize) -> Option<usize> {
        if self.inside.contains(&t) {
            return Some(t * self.hop + i - self.pad);
        }
        let row = if t < self.inside.start { t } else { t - self.inside.len() };
        usize::try_from(self.edges[row * n + i]).ok()
    }
}

impl Stft {
    fn bins(&self) -> usize {
        self.fourier.length() / 2 + 1
    }

    /// Complex values that one thread works on: a frame, its transform, and room.
    fn room(&self) -> usize {
        2 * self.fourier.length() + self.fourier.room()
    }

    /// Scratch floats of [`stft`] for a thread: frames that reach beyond the signal, frames and then
    /// bins, their transform, room.
    fn wide_room(&self) -> usize {
        let n = self.fourier.length();
        2 * LANES * (n + (n + 2) + n + self.fourier.room())
    }

    /// Scratch floats of [`stft`] on so many threads.
    pub fn scratch(&self, threads: usize) -> usize {
        threads * self.wide_room()
    }

    /// Scratch floats of [`stft_input_grad`] on so many threads.
    pub fn back_scratch(&self, threads: usize) -> usize {
        2 * threads * self.room()
    }

    /// Scratch floats of [`stft_window_grad`].
    pub fn window_scratch(&self) -> usize {
        self.sums() * (2 * self.room() + self.fourier.length())
    }

    /// Sums of the gradient by the window that are made side by side: as many whatever the threads,
    /// for the order of additions must not depend on them.
    fn sums(&self) -> usize {
        self.batch.min(4)
    }

    fn source(&self, frame: usize, n: usize) -> Option<usize> {
        self.frames.source(frame, n, self.fourier.length())
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
            if t < self.frames.count {
                [y[2 * (k * self.frames.count + t)], y[2 * (k * self.frames.count + t) + 1]]
            } else {
                [0.0; 2]
            }
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

/// The transform of windowed frames: twice as many at a time as a vector has lanes.
pub fn stft(pool: &Pool, s: &Stft, x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32], threads: usize) {
    stft_at(level(), pool, s, x, w, y, scratch, threads);
}

fn stft_at(
    level: Level,
    pool: &Pool,
    s: &Stft,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (n, bins, frames) = (s.fourier.length(), s.bins(), s.frames.count);
    let wide = 2 * Shape::of(level).lanes;
    let blocks = frames.div_ceil(wide);
    let (y, scratch, room) = (Parts::new(y), Parts::new(scratch), s.wide_room());
    let tasks = s.batch * blocks;
    let slots = threads.min(tasks);
    assert!(w.len() == n, "a window is as long as the transform");
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (beyond, rest) = unsafe { scratch.get(slot * room, room) }.split_at_mut(wide * n);
        let (values, rest) = rest.split_at_mut(wide * (n + 2));
        let (out, spare) = rest.split_at_mut(wide * n);
        for task in (slot..tasks).step_by(slots) {
            let (b, t0) = (task / blocks, wide * (task % blocks));
            let (x, count) = (&x[b * s.samples..][..s.samples], wide.min(frames - t0));
            if count < wide {
                values.fill(0.0);
            }
            if s.frames.inside.start <= t0 && t0 + count <= s.frames.inside.end {
                let start = |t: usize| (t0 + t) * s.frames.hop - s.frames.pad;
                panels(x, start, (count, n), wide, 1.0, values);
            } else {
                for (t, frame) in beyond.chunks_exact_mut(n).take(count).enumerate() {
                    for (i, v) in frame.iter_mut().enumerate() {
                        *v = s.source(t0 + t, i).map_or(0.0, |at| x[at]);
                    }
                }
                panels(beyond, |t| t * n, (count, n), wide, 1.0, values);
            }
            let (from, to, spare) = (values.as_ptr(), out.as_mut_ptr(), spare.as_mut_ptr());
            // SAFETY: the level is the processor's; scratch was measured for the transform.
            unsafe {
                lanes::transform(level, &s.fourier, from, w.as_ptr(), to, spare);
                lanes::split(level, n, out.as_ptr(), s.power, values.as_mut_ptr());
            }
            for k in 0..bins {
                let place = (b * bins + k) * frames + t0;
                if s.power {
                    // SAFETY: tasks have distinct frames; so below.
                    let y = unsafe { y.get(place, count) };
                    y.copy_from_slice(&values[k * wide..][..count]);
                } else {
                    // SAFETY: as above.
                    let y = unsafe { y.get(2 * place, 2 * count) }.as_chunks_mut::<2>().0;
                    // Real parts of the first half of the frames, imaginary parts, then the second.
                    let (first, second) = values[2 * k * wide..][..2 * wide].split_at(wide);
                    for (y, half) in y.chunks_mut(wide / 2).zip([first, second]) {
                        let (re, im) = half.split_at(wide / 2);
                        for ((y, re), im) in y.iter_mut().zip(re).zip(im) {
                            *y = [*re, *im];
                        }
                    }
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
    let (spectrum, room) = (s.bins() * s.frames.count * 2, 2 * s.room());
    let slots = threads.min(s.batch);
    x.fill(0.0);
    let (x, scratch) = (Parts::new(x), Parts::new(scratch));
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let scratch = unsafe { scratch.get(slot * room, room) };
        for b in (slot..s.batch).step_by(slots) {
            // SAFETY: and distinct signals.
            let x = unsafe { x.get(b * s.samples, s.samples) };
            for t in (0..s.frames.count).step_by(2) {
                let back = s.back(&y[b * spectrum..][..spectrum], t, scratch);
                for (i, v) in back.iter().enumerate() {
                    if let Some(at) = s.source(t, i) {
                        x[at] += v[0] * w[i];
                    }
                    // The transform was conjugated, and with it the second signal.
                    if t + 1 < s.frames.count
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
pub fn stft_window_grad(pool: &Pool, s: &Stft, x: &[f32], y: &[f32], w: &mut [f32], scratch: &mut [f32]) {
    let (spectrum, n) = (s.bins() * s.frames.count * 2, s.fourier.length());
    let (slots, room) = (s.sums(), 2 * s.room() + n);
    let parts = Parts::new(&mut *scratch);
    pool.run(slots, &|slot| {
        // SAFETY: slots have distinct scratch.
        let (sum, scratch) = unsafe { parts.get(slot * room, room) }.split_at_mut(n);
        sum.fill(0.0);
        for b in (slot..s.batch).step_by(slots) {
            let x = &x[b * s.samples..][..s.samples];
            for t in (0..s.frames.count).step_by(2) {
                let back = s.back(&y[b * spectrum..][..spectrum], t, scratch);
                for (i, (sum, v)) in sum.iter_mut().zip(back).enumerate() {
                    *sum += s.source(t, i).map_or(0.0, |at| v[0] * x[at]);
                    if t + 1 < s.frames.count {
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
