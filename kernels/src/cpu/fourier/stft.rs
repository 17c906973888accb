//! The short-time transform.
//!
//! A task is a block of frames that stays in the second cache. Its samples are transposed once, a hop
//! to a column: sample `i` of neighbouring frames is then a row of neighbours, for it is sample
//! `i mod hop` of columns `i / hop` further on. The first pass of [`lanes`] reads these rows; frames
//! are never laid out in memory, and the spectra of a block, which the magnitudes are filtered from,
//! are not either.

use super::Fourier;
use super::lanes::Samples;
use super::real::{Layout, split};
use crate::cpu::bands::{self, Bands};
use crate::cpu::pack::panels;
use crate::cpu::parts::Parts;
use crate::cpu::simd::{Level, level};
use crate::cpu::vector::Shape;
use crate::pool::Pool;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The longest vector.
pub(super) const LANES: usize = 16;
/// Frames of a task.
const BLOCK: usize = 128;
/// Values from bin to bin of a block: an odd number of cache lines, for powers of two fall on each other.
const ROW: usize = BLOCK + LANES;

/// A short-time transform: `x[batch, samples] -> y[batch, bins, frames, 2]`.
#[derive(Clone, Debug)]
pub struct Stft {
    /// The transform of a frame.
    pub fourier: Fourier,
    /// Signals.
    pub batch: usize,
    /// Where frames lie.
    pub frames: Frames,
    /// What is made of spectra.
    pub output: Output,
}

/// What is made of the spectrum of a frame.
#[derive(Clone, Debug)]
pub enum Output {
    /// Real and imaginary parts: `[batch, bins, frames, 2]`.
    Parts,
    /// Squared magnitudes: `[batch, bins, frames]`.
    Power,
    /// Squared magnitudes times the rows of a matrix over the bins: `[batch, rows, frames]`.
    Filtered(Bands),
}

/// The frames of a signal.
#[derive(Clone, Debug)]
pub struct Frames {
    samples: usize,
    count: usize,
    hop: usize,
    pad: usize,
    /// For each place before the signal and behind it the sample there; -1 for a zero.
    before: Vec<i32>,
    after: Vec<i32>,
    /// Samples of a column of the transposed signal.
    column: usize,
    /// Columns that a frame reaches beyond its own.
    beyond: usize,
    /// Where each sample of the first frame lies there.
    at: Vec<u32>,
}

impl Frames {
    /// `count` frames of `n` places, a `hop` apart, of a signal of so many samples that begins at
    /// place `pad`; `source` gives the sample at a place that is not in the signal.
    pub fn new(
        (samples, n): (usize, usize),
        (count, hop, pad): (usize, usize, usize),
        source: impl Fn(usize) -> Option<usize>,
    ) -> Frames {
        let hop = hop.max(1);
        let end = count.checked_sub(1).map_or(0, |last| last * hop + n);
        let table = |places: std::ops::Range<usize>| places.map(|p| source(p).map_or(-1, |at| at as i32)).collect();
        let mut frames = Frames {
            samples,
            count,
            hop,
            pad,
            before: table(0..pad.min(end)),
            after: table(pad + samples..end),
            column: hop.min(n),
            beyond: n.saturating_sub(1) / hop,
            at: vec![],
        };
        frames.at = (0..n).map(|i| (i % hop * frames.row() + i / hop) as u32).collect();
        frames
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Samples of the signal.
    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    /// From row to row of the transposed signal: an odd number of cache lines.
    fn row(&self) -> usize {
        LANES * ((BLOCK + self.beyond).div_ceil(LANES) | 1)
    }

    /// The sample at place `i` of frame `t`.
    pub(super) fn source(&self, t: usize, i: usize) -> Option<usize> {
        self.sample(t * self.hop + i)
    }

    fn sample(&self, place: usize) -> Option<usize> {
        let outside = |table: &[i32], i: usize| table.get(i).and_then(|at| usize::try_from(*at).ok());
        match place.checked_sub(self.pad) {
            None => outside(&self.before, place),
            Some(at) if at < self.samples => Some(at),
            Some(at) => outside(&self.after, at - self.samples),
        }
    }

    /// The places from `first` on, of a signal `x`.
    fn fill(&self, x: &[f32], first: usize, out: &mut [f32]) {
        let end = first + out.len();
        let (start, stop) = (self.pad.clamp(first, end), (self.pad + self.samples).clamp(first, end));
        if start < stop {
            out[start - first..stop - first].copy_from_slice(&x[start - self.pad..stop - self.pad]);
        }
        for place in (first..start).chain(stop.max(start)..end) {
            out[place - first] = self.sample(place).map_or(0.0, |at| x[at]);
        }
    }

    /// Transposes the columns of `lanes` frames from `t` on, and those that they reach. `spare` holds
    /// columns that reach beyond the signal.
    fn transpose(&self, x: &[f32], (t, lanes): (usize, usize), spare: &mut [f32], out: &mut [f32]) {
        let (columns, size, first) = (lanes + self.beyond, self.column, t * self.hop);
        let reach = (columns - 1) * self.hop + size;
        match first.checked_sub(self.pad) {
            Some(start) if start + reach <= self.samples => {
                panels(&x[start..], |c| c * self.hop, (columns, size), self.row(), 1.0, out);
            }
            _ => {
                for (c, column) in spare.chunks_exact_mut(size.max(1)).take(columns).enumerate() {
                    self.fill(x, first + c * self.hop, column);
                }
                panels(spare, |c| c * size, (columns, size), self.row(), 1.0, out);
            }
        }
    }
}

/// A thread's scratch.
struct Room<'s> {
    /// The window, halved where samples go in twos.
    window: &'s mut [f32],
    spare: &'s mut [f32],
    signal: &'s mut [f32],
    values: &'s mut [f32],
    more: &'s mut [f32],
    bins: &'s mut [f32],
}

impl Stft {
    /// Rows of the result.
    fn rows(&self) -> usize {
        match &self.output {
            Output::Filtered(bank) => bank.rows(),
            _ => self.fourier.bins(),
        }
    }

    /// Floats of each part of a thread's [`Room`], in whole cache lines.
    fn room(&self) -> [usize; 6] {
        let (plan, frames) = (&self.fourier, &self.frames);
        let planes = if matches!(self.output, Output::Parts) { 2 } else { 1 };
        let columns = BLOCK + frames.beyond;
        let [values, more] = [plan.values(), plan.spare()].map(|n| 2 * n * LANES);
        let parts = [columns * frames.column, frames.column * frames.row(), values, more, planes * plan.bins() * ROW];
        let [spare, signal, values, more, bins] = parts;
        [plan.length(), spare, signal, values, more, bins].map(|n| n.next_multiple_of(LANES))
    }

    /// Scratch floats of [`stft`] on so many threads.
    pub fn scratch(&self, threads: usize) -> usize {
        threads * self.room().iter().sum::<usize>()
    }

    /// Cuts a thread's scratch up.
    fn cut<'s>(&self, scratch: &'s mut [f32]) -> Room<'s> {
        let [window, spare, signal, values, more, _] = self.room();
        let (window, rest) = scratch.split_at_mut(window);
        let (spare, rest) = rest.split_at_mut(spare);
        let (signal, rest) = rest.split_at_mut(signal);
        let (values, rest) = rest.split_at_mut(values);
        let (more, bins) = rest.split_at_mut(more);
        Room { window, spare, signal, values, more, bins }
    }
}

/// The transform of windowed frames.
///
/// # Panics
/// When a slice is shorter than the transform says, or the filters are of other bins.
pub fn stft(pool: &Pool, s: &Stft, x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32], threads: usize) {
    stft_at(level(), pool, s, x, w, y, scratch, threads);
}

#[allow(clippy::too_many_arguments)]
pub(super) fn stft_at(
    level: Level,
    pool: &Pool,
    s: &Stft,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (plan, frames, n) = (&s.fourier, &s.frames, s.fourier.length());
    assert!(w.len() == n && frames.at.len() == n, "a window and frames are as long as the transform");
    assert!(!matches!(&s.output, Output::Filtered(bank) if bank.columns() != plan.bins()), "a filter for every bin");
    let lanes = Shape::of(level).lanes;
    let blocks = frames.count.div_ceil(BLOCK);
    let (tasks, room) = (s.batch * blocks, s.scratch(1));
    let (y, scratch, next) = (Parts::new(y), Parts::new(scratch), AtomicUsize::new(0));
    // Whoever is done takes the next block: threads may be held up.
    pool.run(threads.min(tasks), &|slot| {
        // SAFETY: slots have distinct scratch.
        let room = s.cut(unsafe { scratch.get(slot * room, room) });
        let scale = if n.is_multiple_of(2) { 0.5 } else { 1.0 };
        room.window.iter_mut().zip(w).for_each(|(half, w)| *half = scale * w);
        let at = Layout { row: ROW, plane: plan.bins() * ROW };
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            let (b, t) = (task / blocks, BLOCK * (task % blocks));
            let (x, count) = (&x[b * frames.samples..][..frames.samples], BLOCK.min(frames.count - t));
            frames.transpose(x, (t, count.next_multiple_of(lanes)), room.spare, room.signal);
            for first in (0..count).step_by(lanes) {
                let x = room.signal[first..].as_ptr();
                let samples = Samples { x, at: frames.at.as_ptr(), w: room.window.as_ptr() };
                let (values, bins) = (room.values.as_mut_ptr(), room.bins[first..].as_mut_ptr());
                // SAFETY: the level is the processor's; scratch was measured for the transform.
                unsafe {
                    plan.windowed(level, samples, values, room.more.as_mut_ptr());
                    split(level, plan, values, !matches!(s.output, Output::Parts), bins, at);
                }
            }
            // SAFETY: tasks have distinct frames, and rows are distinct.
            let to = |r: usize, parts: usize| unsafe {
                y.get(parts * ((b * s.rows() + r) * frames.count + t), parts * count)
            };
            match &s.output {
                Output::Parts => {
                    for k in 0..plan.bins() {
                        let (re, im) = (&room.bins[k * ROW..], &room.bins[at.plane + k * ROW..]);
                        for (y, (re, im)) in to(k, 2).as_chunks_mut::<2>().0.iter_mut().zip(re.iter().zip(im)) {
                            *y = [*re, *im];
                        }
                    }
                }
                Output::Power => {
                    (0..plan.bins()).for_each(|k| to(k, 1).copy_from_slice(&room.bins[k * ROW..][..count]));
                }
                Output::Filtered(bank) => bands::block(level, bank, room.bins, ROW, |r| to(r, 1)),
            }
        }
    });
}
