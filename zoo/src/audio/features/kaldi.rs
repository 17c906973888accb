//! Kaldi's filter banks and cepstra (`compute-fbank-feats`, `compute-mfcc-feats`; torchaudio: `compliance.kaldi`).
//!
//! Each frame is prepared by itself: its mean is removed, then preemphasis within the frame, then a
//! window; the transform's length is the next power of two. With `snip_edges` only frames that lie
//! within the recording count; without, the recording is mirrored at its ends. Cepstra are the cosine transform of the
//! filter banks, the higher ones lifted.

use super::filters::{Bank, Scale, cosines};
use super::frames::{self, Mirror, masked};
use super::window::Shape;
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::table::Table;
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind, UnaryKind};
use mobilis_runtime::ops::random::{Distribution, random};
use mobilis_runtime::ops::stft::{Edge, Framing, stft};
use mobilis_runtime::ops::{contraction, leaf, movement, pad, reduce, slice, window};

/// The least energy whose logarithm is taken.
const EPSILON: f64 = f32::EPSILON as f64;

/// Settings of Kaldi's filter banks and cepstra, under its names.
#[derive(Clone, Debug, PartialEq)]
pub struct Fbank {
    /// The rate of recordings, in hertz.
    pub sample_frequency: u32,
    /// A frame in milliseconds.
    pub frame_length: f64,
    /// From frame to frame, in milliseconds.
    pub frame_shift: f64,
    /// How many filters.
    pub num_mel_bins: usize,
    /// Where the first begins, in hertz.
    pub low_freq: f64,
    /// Where the last ends, in hertz; 0 or less counts from half the sampling rate.
    pub high_freq: f64,
    /// The deviation of noise that is added, in training; Kaldi's samples are 16-bit numbers, so is this.
    pub dither: f64,
    /// `x[t] - this · x[t - 1]` within a frame.
    pub preemphasis_coefficient: f64,
    /// Whether each frame's mean is removed.
    pub remove_dc_offset: bool,
    /// The window.
    pub window_type: Shape,
    /// Whether the transform's length is a power of two.
    pub round_to_power_of_two: bool,
    /// Whether only frames within the recording count.
    pub snip_edges: bool,
    /// How many cepstra, of which the first is left out where there is energy; none: filter banks.
    pub num_ceps: Option<usize>,
    /// Cepstrum `i` is multiplied by `1 + this / 2 sin(pi i / this)`; 0: by nothing.
    pub cepstral_lifter: f64,
    /// Whether a frame's energy comes first of its features.
    pub use_energy: bool,
    /// Whether it is taken before preemphasis and window.
    pub raw_energy: bool,
    /// The least energy.
    pub energy_floor: f64,
    /// Whether the logarithm is taken.
    pub use_log_fbank: bool,
    /// Whether powers are filtered rather than magnitudes.
    pub use_power: bool,
    /// Whether each feature's mean over the recording is removed.
    pub subtract_mean: bool,
    /// What samples are multiplied by first: 32768 where a recipe wants 16-bit numbers.
    pub scale: f64,
}

impl Default for Fbank {
    /// Kaldi's own defaults, but for no dither.
    fn default() -> Self {
        Self {
            sample_frequency: 16_000,
            frame_length: 25.0,
            frame_shift: 10.0,
            num_mel_bins: 23,
            low_freq: 20.0,
            high_freq: 0.0,
            dither: 0.0,
            preemphasis_coefficient: 0.97,
            remove_dc_offset: true,
            window_type: Shape::Povey,
            round_to_power_of_two: true,
            snip_edges: true,
            num_ceps: None,
            cepstral_lifter: 22.0,
            use_energy: false,
            raw_energy: true,
            energy_floor: 1.0,
            use_log_fbank: true,
            use_power: true,
            subtract_mean: false,
            scale: 1.0,
        }
    }
}

impl Fbank {
    /// Samples of a frame.
    pub fn length(&self) -> usize {
        (f64::from(self.sample_frequency) * self.frame_length * 0.001) as usize
    }

    /// Samples from frame to frame.
    pub fn hop(&self) -> usize {
        (f64::from(self.sample_frequency) * self.frame_shift * 0.001) as usize
    }

    /// Features of a frame.
    pub fn width(&self) -> usize {
        self.num_ceps.unwrap_or(self.num_mel_bins + usize::from(self.use_energy))
    }

    /// The length of the transform.
    pub fn n_fft(&self) -> usize {
        if self.round_to_power_of_two { self.length().next_power_of_two() } else { self.length() }
    }

    /// How many frames of a recording of so many samples count.
    pub fn frames(&self, samples: usize) -> usize {
        let (length, hop) = (self.length(), self.hop());
        match self.snip_edges {
            true if samples < length => 0,
            true => (samples - length) / hop + 1,
            false => (samples + hop / 2) / hop,
        }
    }

    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let most = 1 << 16;
        if !(1..=most).contains(&self.hop()) {
            return Some(("frame_shift", format!("{} samples, 1 to {most} are possible", self.hop())));
        }
        if !(self.hop().max(2)..=most).contains(&self.length()) {
            return Some(("frame_length", format!("{} samples, a hop to {most} are possible", self.length())));
        }
        if !(3..=8192).contains(&self.num_mel_bins) {
            return Some(("num_mel_bins", format!("{}, 3 to 8192 are possible", self.num_mel_bins)));
        }
        if self.num_ceps.is_some_and(|n| !(1..=self.num_mel_bins).contains(&n)) {
            let n = self.num_ceps.unwrap_or(0);
            return Some(("num_ceps", format!("{n}, 1 to {} are possible, as many as filters", self.num_mel_bins)));
        }
        if self.num_ceps.is_some() && !(self.use_power && self.use_log_fbank) {
            return Some(("num_ceps", "cepstra of other than logarithms of powers, which Kaldi does not have".into()));
        }
        let nyquist = f64::from(self.sample_frequency) / 2.0;
        if !(0.0 <= self.low_freq && self.low_freq < self.high() && self.high() <= nyquist) {
            return Some(("high_freq", format!("{} to {} Hz within 0 to {nyquist} Hz", self.low_freq, self.high())));
        }
        None
    }

    fn high(&self) -> f64 {
        if self.high_freq > 0.0 { self.high_freq } else { f64::from(self.sample_frequency) / 2.0 + self.high_freq }
    }
}

/// Settings with what is computed from them once.
#[derive(Clone, Debug)]
pub(super) struct Kaldi {
    pub(super) settings: Fbank,
    window: Table,
    filters: Table,
    cosines: Option<Table>,
}

impl Kaldi {
    pub(super) fn new(settings: Fbank) -> Self {
        let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let n_fft = settings.n_fft();
        let bank = Bank {
            filters: settings.num_mel_bins,
            length: n_fft,
            rate: f64::from(settings.sample_frequency),
            low: settings.low_freq,
            high: settings.high(),
            scale: Scale::Kaldi,
            norm: false,
        };
        let mut filters = single(bank.weights());
        if settings.use_energy && settings.num_ceps.is_none() {
            // Its place; the filter lets nothing pass.
            filters.splice(0..0, vec![0.0; n_fft / 2 + 1]);
        }
        let window = single(settings.window_type.values(settings.length(), false));
        let cosines = settings.num_ceps.map(|kept| Table::new("cosines", single(lifted(&settings, kept))));
        Self { window: Table::new("window", window), filters: Table::new("filters", filters), cosines, settings }
    }

    /// As [`super::spectral::Spectral::trace`].
    pub(super) fn trace(&self, x: Handle, lengths: Handle, frames: Dim, width: Dim) -> (Handle, Handle) {
        let s = &self.settings;
        let (length, hop) = (s.length(), s.hop());
        let number = leaf::scalar;
        let x = masked(ew::scale(x, s.scale), lengths, 0.0);
        let (x, counted) = match s.snip_edges {
            true => (x, frames::quotient(lengths, hop as i64 - length as i64, hop as i64)),
            false => {
                let before = (length / 2).saturating_sub(hop / 2);
                let x = frames::mirrored(x, lengths, before, Mirror::Half);
                (x, frames::quotient(lengths, hop as i64 / 2, hop as i64))
            }
        };
        // Room for the last frame.
        let ty = type_of(x);
        let longer = Dim::anonymous(Extent::add(ty.dims[1].extent.clone(), Extent::constant(length as u64)));
        let x = pad::pad_zeros(x, 1, Extent::constant(0), Extent::constant(length as u64), longer);
        let mut x = window::unfold(x, 1, hop as u64, 1, frames, Dim::fixed(length as u64));
        let ty = type_of(x);
        if s.dither > 0.0 && trace::mode() == Mode::Train {
            x = ew::add(x, ew::scale(random(Distribution::Normal, &ty), s.dither));
        }
        if s.remove_dc_offset {
            x = ew::sub(x, reduce::restore(reduce::mean(x, &[2]), &ty.dims, &[2]));
        }
        let energy = |x: Handle| {
            let sum = reduce::reduce(ew::mul(x, x), reduce::Kind::Sum, &[2]);
            let log = ew::unary(UnaryKind::Log, ew::maximum(sum, number(EPSILON)));
            if s.energy_floor > 0.0 { ew::maximum(log, number(s.energy_floor.ln())) } else { log }
        };
        let raw = (s.use_energy && s.raw_energy).then(|| energy(x));
        if s.preemphasis_coefficient != 0.0 {
            // The first sample's neighbour is itself.
            let first = slice::slice(x, 2, Extent::constant(0), 1, Dim::fixed(1));
            let others = slice::slice(x, 2, Extent::constant(0), 1, Dim::fixed(length as u64 - 1));
            let before = slice::concat(&[first, others], 2, ty.dims[2].clone());
            x = ew::sub(x, ew::scale(before, s.preemphasis_coefficient));
        }
        let window = self.window.get(vec![ty.dims[2].clone()]);
        x = ew::mul(x, window);
        let energy = if s.use_energy { Some(raw.unwrap_or_else(|| energy(x))) } else { None };
        let n_fft = s.n_fft() as u64;
        let x = pad::pad_zeros(x, 2, Extent::constant(0), Extent::constant(n_fft - length as u64), Dim::fixed(n_fft));
        // Each frame is a signal of its own.
        let flat = leaf::fill(1.0, mobilis_runtime::graph::TensorType::new(vec![Dim::fixed(n_fft)], type_of(x).dtype));
        let y = stft(x, flat, Framing { hop: n_fft, pad: 0, edge: Edge::Zeros });
        let power = reduce::reduce(ew::mul(y, y), reduce::Kind::Sum, &[4]);
        let mut dims = type_of(power).dims;
        dims.truncate(3);
        let mut power = movement::reshape(power, dims.clone());
        if !s.use_power {
            let positive = ew::compare(CompareKind::Gt, power, number(0.0));
            let root = ew::unary(UnaryKind::Sqrt, ew::select(positive, power, number(1.0)));
            power = ew::select(positive, root, number(0.0));
        }
        let rows = if s.num_ceps.is_some() { Dim::fixed(s.num_mel_bins as u64) } else { width.clone() };
        let filters = self.filters.get(vec![rows.clone(), dims[2].clone()]);
        let mut y = contraction::einsum(&[power, filters], &[b"btk", b"mk"], b"btm");
        if s.use_log_fbank {
            y = ew::unary(UnaryKind::Log, ew::maximum(y, number(EPSILON)));
        }
        if let Some(table) = &self.cosines {
            let cosines = table.get(vec![width, rows]);
            y = contraction::einsum(&[y, cosines], &[b"btm", b"cm"], b"btc");
        }
        let ty = type_of(y);
        if let Some(energy) = energy {
            let first = ew::compare(CompareKind::Eq, leaf::iota(2, &ty), leaf::index(Extent::constant(0)));
            y = ew::select(first, reduce::restore(energy, &ty.dims, &[2]), y);
        }
        if s.subtract_mean {
            let n = ew::maximum(ew::cast(counted, type_of(y).dtype), number(1.0));
            let sum = reduce::reduce(masked(y, counted, 0.0), reduce::Kind::Sum, &[1]);
            let n = reduce::restore(n, &[ty.dims[0].clone(), ty.dims[2].clone()], &[1]);
            y = ew::sub(y, reduce::restore(ew::div(sum, n), &ty.dims, &[1]));
        }
        (masked(y, counted, 0.0), counted)
    }
}

/// The cosine transform with what lifts each cepstrum, `[kept, num_mel_bins]`.
fn lifted(settings: &Fbank, kept: usize) -> Vec<f64> {
    let (n, q) = (settings.num_mel_bins, settings.cepstral_lifter);
    let lift = |i: usize| if q == 0.0 { 1.0 } else { 1.0 + 0.5 * q * (std::f64::consts::PI * i as f64 / q).sin() };
    cosines(kept, n).into_iter().enumerate().map(|(i, v)| v * lift(i / n)).collect()
}
