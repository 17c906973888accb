//! Features of centred spectra as a graph: [`Settings`] say what is done, step by step.
//!
//! ```text
//! samples ─ noise ─ preemphasis ─ edges ─ spectrum ─ filters ─ logarithm ─ cosines ─ scaling ─ mask
//! ```
//!
//! Every step knows how long each recording is, so what it gives does not depend on what else is
//! in the batch. Reference: NeMo's `FilterbankFeatures`, torchaudio's `MFCC`, Hugging Face's
//! `WhisperFeatureExtractor` and librosa's `melspectrogram`, whose orders of steps agree.

use super::filters::cosines;
use super::frames::{self, masked, within};
use super::settings::{Beyond, Counted, Log, Normalize, Settings};
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::module::table::Table;
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind, UnaryKind};
use mobilis_runtime::ops::random::{Distribution, random};
use mobilis_runtime::ops::stft::{Edge, Framing, stft};
use mobilis_runtime::ops::{contraction, leaf, movement, pad, reduce, slice};

/// Settings with what is computed from them once.
#[derive(Clone, Debug)]
pub(super) struct Spectral {
    pub(super) settings: Settings,
    window: Table,
    filters: Table,
    cosines: Option<Table>,
    fixed: Option<(Table, Table)>,
}

impl Spectral {
    pub(super) fn new(settings: Settings) -> Self {
        let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let mut window = vec![0.0; settings.n_fft];
        let before = (settings.n_fft - settings.window_length) / 2;
        window[before..before + settings.window_length].copy_from_slice(&settings.window());
        // Features that stand beside themselves are filters that do.
        let filters = settings.filters();
        let (filters, cosines) = match settings.cepstra {
            Some(kept) => (filters, Some(single(cosines(kept, settings.mels)).repeat(settings.splicing))),
            None => (filters.repeat(settings.splicing), None),
        };
        let fixed = match &settings.normalize {
            Normalize::Fixed { mean, std } => Some((mean.repeat(settings.splicing), std.repeat(settings.splicing))),
            _ => None,
        };
        Self {
            window: Table::new("window", window),
            filters: Table::new("filters", filters),
            cosines: cosines.map(|c| Table::new("cosines", c)),
            fixed: fixed.map(|(mean, std)| (Table::new("mean", mean), Table::new("std", std))),
            settings,
        }
    }

    /// Features `[batch, frames, width]` of samples `[batch, frames · hop]` and their lengths in
    /// samples, and how many frames count.
    pub(super) fn trace(&self, x: Handle, lengths: Handle, frames: Dim, width: Dim) -> (Handle, Handle) {
        let s = &self.settings;
        let x = self.emphasized(x, lengths);
        let power = self.spectrum(x, lengths);
        let filtered = Dim::fixed((s.mels * if s.cepstra.is_some() { 1 } else { s.splicing }) as u64);
        let bins = Dim::fixed((s.n_fft / 2 + 1) as u64);
        let rows = if self.cosines.is_some() { filtered.clone() } else { width.clone() };
        let filters = self.filters.get(vec![rows, bins]);
        // Frames stay innermost until the logarithm is taken: so they lie in memory.
        let mel = contraction::einsum(&[filters, power], &[b"mk", b"bkt"], b"bmt");
        let mel = slice::slice(mel, 2, Extent::constant(0), 1, frames);
        let counted = self.counted(lengths);
        let mut y = self.logarithm(mel, counted);
        if let Some(table) = &self.cosines {
            let cosines = table.get(vec![width, filtered]);
            y = contraction::einsum(&[y, cosines], &[b"btm", b"cm"], b"btc");
        }
        let y = self.normalized(y, counted);
        (masked(y, counted, s.pad_value), counted)
    }

    /// With noise in training, then the difference from the sample before; zeros behind the end.
    fn emphasized(&self, x: Handle, lengths: Handle) -> Handle {
        let s = &self.settings;
        let ty = type_of(x);
        let inside = within(&ty, lengths);
        let zero = || leaf::scalar(0.0);
        let mut x = x;
        if s.dither > 0.0 && trace::mode() == Mode::Train {
            x = ew::add(x, ew::scale(random(Distribution::Normal, &ty), s.dither));
        }
        if let Some(share) = s.preemphasis {
            // What lies behind the end is no neighbour of a sample within, so one mask is enough.
            let dim = ty.dims[1].clone();
            let longer = Dim::anonymous(Extent::add(dim.extent.clone(), Extent::constant(1)));
            let later = pad::pad_zeros(x, 1, Extent::constant(1), Extent::constant(0), longer);
            let before = slice::slice(later, 1, Extent::constant(0), 1, dim);
            x = ew::sub(x, ew::scale(before, share));
        }
        ew::select(inside, x, zero())
    }

    /// Magnitudes to a power, `[batch, bins, frames]`.
    fn spectrum(&self, x: Handle, lengths: Handle) -> Handle {
        let s = &self.settings;
        let window = self.window.get(vec![Dim::fixed(s.n_fft as u64)]);
        let (x, before) = match s.beyond {
            Beyond::Zeros => (x, s.pad),
            Beyond::Mirror => (frames::mirrored(x, lengths, s.pad, frames::Mirror::Whole), 0),
        };
        let framing = Framing { hop: s.hop as u64, pad: before as u64, edge: Edge::Zeros };
        let y = stft(x, window, framing);
        let power = reduce::reduce(ew::mul(y, y), reduce::Kind::Sum, &[3]);
        let power = match s.narrow {
            Some((probability, hertz)) if trace::mode() == Mode::Train && probability > 0.0 => {
                self.narrowed(power, probability, hertz)
            }
            _ => power,
        };
        if s.power == 2.0 {
            return power;
        }
        // The root whose gradient at 0 is 0 rather than infinite.
        let positive = ew::compare(CompareKind::Gt, power, leaf::scalar(0.0));
        let inner = ew::select(positive, power, leaf::scalar(1.0));
        let root = if s.power == 1.0 { ew::unary(UnaryKind::Sqrt, inner) } else { ew::powf(inner, s.power / 2.0) };
        ew::select(positive, root, leaf::scalar(0.0))
    }

    /// Without what lies above a frequency, in some recordings.
    fn narrowed(&self, power: Handle, probability: f64, hertz: f64) -> Handle {
        let s = &self.settings;
        let ty = type_of(power);
        let chosen =
            random(Distribution::Bernoulli(probability), &TensorType::new(vec![ty.dims[0].clone()], DType::Bool));
        let chosen = reduce::restore(chosen, &ty.dims, &[1, 2]);
        let first = (hertz * s.n_fft as f64 / f64::from(s.sample_rate)).ceil();
        let above = ew::compare(CompareKind::Ge, leaf::iota(1, &ty), leaf::index(Extent::constant(first as u64)));
        ew::select(ew::binary(BinaryKind::And, chosen, above), leaf::scalar(0.0), power)
    }

    /// `[batch, mels, frames]` energies to `[batch, frames, mels]`.
    fn logarithm(&self, mel: Handle, counted: Handle) -> Handle {
        let number = leaf::scalar;
        let log = |x: Handle| ew::unary(UnaryKind::Log, x);
        let turned = |x: Handle| movement::permute(x, &[0, 2, 1]);
        let floor = || ew::maximum(mel, number(1e-10));
        let near = |y: Handle, range: f64| {
            let low = masked(y, counted, f64::from(f32::MIN));
            let largest = reduce::reduce(low, reduce::Kind::Max, &[1, 2]);
            ew::maximum(y, ew::sub(reduce::restore(largest, &type_of(y).dims, &[1, 2]), number(range)))
        };
        match self.settings.log {
            Log::None => turned(mel),
            Log::Added(guard) => turned(log(ew::add(mel, number(guard)))),
            Log::Clamped(guard) => turned(log(ew::maximum(mel, number(guard)))),
            Log::Whisper => {
                let y = turned(ew::scale(log(floor()), std::f64::consts::LOG10_E));
                ew::scale(ew::add(near(y, 8.0), number(4.0)), 0.25)
            }
            Log::Decibels(range) => near(turned(ew::scale(log(floor()), 10.0 * std::f64::consts::LOG10_E)), range),
        }
    }

    fn normalized(&self, y: Handle, counted: Handle) -> Handle {
        let ty = type_of(y);
        let positions: &[usize] = match self.settings.normalize {
            Normalize::None => return y,
            Normalize::Fixed { .. } => {
                let Some((mean, std)) = &self.fixed else { return y };
                let dims = || vec![ty.dims[2].clone()];
                return ew::div(ew::sub(y, mean.get(dims())), std.get(dims()));
            }
            Normalize::PerFeature => &[1],
            Normalize::AllFeatures => &[1, 2],
        };
        let removed: Vec<usize> = (1..3).filter(|p| !positions.contains(p)).collect();
        let over = |h: Handle| {
            let kept: Vec<Dim> = [0].iter().chain(&removed).map(|p| ty.dims[*p].clone()).collect();
            let others: Vec<usize> = (1..kept.len()).collect();
            reduce::restore(h, &kept, &others)
        };
        let mut n = ew::cast(counted, DType::F32);
        if positions.len() == 2 {
            n = ew::mul(n, leaf::size(ty.dims[2].extent.clone()));
        }
        let at_least_one = |h: Handle| ew::maximum(h, leaf::scalar(1.0));
        // Of each feature first: over both at once, the order would depend on how long the batch is.
        let sum = |h: Handle| {
            let each = reduce::reduce(masked(h, counted, 0.0), reduce::Kind::Sum, &[1]);
            if positions.len() == 2 { reduce::reduce(each, reduce::Kind::Sum, &[1]) } else { each }
        };
        let back = |h: Handle| reduce::restore(h, &ty.dims, positions);
        let mean = ew::div(sum(y), over(at_least_one(n)));
        let away = ew::sub(y, back(mean));
        let spread = ew::div(sum(ew::mul(away, away)), over(at_least_one(ew::sub(n, leaf::scalar(1.0)))));
        // The root's gradient at 0 would be infinite.
        let positive = ew::compare(CompareKind::Gt, spread, leaf::scalar(0.0));
        let root = ew::unary(UnaryKind::Sqrt, ew::select(positive, spread, leaf::scalar(1.0)));
        let std = ew::add(ew::select(positive, root, leaf::scalar(0.0)), leaf::scalar(1e-5));
        ew::div(away, back(std))
    }

    /// How many frames count, as [`Settings::frames`] has it.
    fn counted(&self, lengths: Handle) -> Handle {
        let s = &self.settings;
        let less = 2 * s.pad as i64 - s.n_fft as i64;
        let frames = match s.counted {
            Counted::Whole => frames::quotient(lengths, less, s.hop as i64),
            Counted::Centred => frames::quotient(lengths, less + s.hop as i64, s.hop as i64),
            Counted::Begun => frames::quotient(lengths, s.hop as i64 - 1, s.hop as i64),
        };
        let none = ew::compare(CompareKind::Le, lengths, frames::whole(0, lengths));
        ew::select(none, frames::whole(0, lengths), frames)
    }
}
