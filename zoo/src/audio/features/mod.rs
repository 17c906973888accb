//! Features: what encoders see of sound, computed in the encoder's own graph.
//!
//! [`Features`] are a module without parameters, so they run on every device, gradients pass
//! through them to the samples, and a model that holds them is exported whole. There are two kinds:
//! spectra with [`Settings`] (NeMo's in the behaviour of every version, MFCC, Whisper's, Parakeet's,
//! librosa's) and Kaldi's [`Fbank`].
//!
//! Recordings enter as `[Batch, Frames, Hop]`: the samples one after the other, cut every hop, so
//! that [`Frames`] is an axis that an argument binds. [`Features::pack`] makes this
//! of recordings of any lengths. What stands behind a recording's end, and which others are in the
//! batch, changes nothing in its frames, bit for bit on the CPU.
//!
//! [`Extractor`] is for features alone, without an encoder.

mod conf;
mod config;
mod extractor;
mod filters;
mod frames;
mod kaldi;
mod settings;
mod spectral;
mod window;

pub use config::FeatureError;
pub use extractor::{Extracted, Extractor};
pub use filters::{Bank, Scale, cosines};
pub use kaldi::Fbank;
pub use settings::{Beyond, Counted, Log, Normalize, Settings, Version};
pub use window::Shape;

use super::{Batch, Frames, Hop, Samples};
use kaldi::Kaldi;
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::ops::elementwise as ew;
use mobilis_runtime::ops::{leaf, movement, reduce, slice};
use mobilis_runtime::prelude::*;
use spectral::Spectral;

/// Samples of recordings, one after the other, cut every hop: `[Batch, Frames, Hop]`.
pub type Sound = Tensor<(Batch, Frames, Hop)>;
/// The same as values.
pub type SoundArray = Array<(Batch, Frames, Hop)>;
/// How many samples each recording has.
pub type SampleCounts = Tensor<(Batch,), Lengths<Samples>>;
/// The same as values.
pub type SampleCountArray = Array<(Batch,), Lengths<Samples>>;
/// How many frames of each recording count.
pub type FrameCounts = Tensor<(Batch,), Lengths<Frames>>;

/// Batches have at least so many frames: products of matrices of a few rows sum in another order.
const LEAST: usize = 16;

#[derive(Clone, Debug)]
enum Kind {
    Spectral(Box<Spectral>),
    Kaldi(Box<Kaldi>),
}

/// From samples to frames of features.
#[neural_module(no_default)]
pub struct Features {
    #[skip]
    kind: Kind,
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Spectral(s) => s.settings.fmt(f),
            Kind::Kaldi(k) => k.settings.fmt(f),
        }
    }
}

impl Clone for Features {
    fn clone(&self) -> Self {
        Self { kind: self.kind.clone() }
    }
}

#[neural_module]
impl Features {
    /// `[Batch, Frames, Hop]` samples and how many count, to `[Batch, Frames, M]` features and how many
    /// frames count. `M` has the size of [`width`](Self::width): another is an error when the
    /// program runs.
    #[allow(clippy::type_complexity)]
    pub fn forward<M: Axis>(
        &self,
        sound: Sound,
        samples: SampleCounts,
    ) -> (Tensor<(Batch, Frames, M), MelSpectrogram>, FrameCounts) {
        let hop = self.hop() as u64;
        // The hop's axis is bound by the argument; here its size is known.
        let cut = slice::slice(sound.raw(), 2, Extent::constant(0), 1, Dim::fixed(hop));
        let mut dims = type_of(cut).dims;
        let samples_dim = Dim::anonymous(Extent::mul(dims[1].extent.clone(), Extent::constant(hop)));
        dims.splice(1..3, [samples_dim]);
        let x = movement::reshape(cut, dims);
        let counts = samples.raw();
        let (y, counted) = self.trace(x, counts, Frames::dim(), M::dim());
        (Tensor::from_raw(y), Tensor::from_raw(counted))
    }

    /// The same of `[Batch, Samples]`, where the compiler knows how frames follow from samples:
    /// `F = floor(Samples / 160) + 1`, for a hop of 160. More frames than there are is an error when the
    /// program runs.
    #[allow(clippy::type_complexity)]
    pub fn of_samples<F: Axis, M: Axis>(
        &self,
        sound: Tensor<(Batch, Samples)>,
        samples: SampleCounts,
    ) -> (Tensor<(Batch, F, M), MelSpectrogram>, Tensor<(Batch,), Lengths<F>>) {
        let (y, counted) = self.trace(sound.raw(), samples.raw(), F::dim(), M::dim());
        (Tensor::from_raw(y), Tensor::from_raw(counted))
    }
}

impl Features {
    fn trace(&self, x: Handle, counts: Handle, frames: Dim, width: Dim) -> (Handle, Handle) {
        match &self.kind {
            Kind::Spectral(spectral) => spectral.trace(x, counts, frames, width),
            Kind::Kaldi(kaldi) => kaldi.trace(x, counts, frames, width),
        }
    }

    /// Features of spectra.
    ///
    /// # Errors
    /// Settings that contradict themselves.
    pub fn spectral(settings: Settings) -> Result<Self, FeatureError> {
        match settings.fault() {
            None => Ok(Self { kind: Kind::Spectral(Box::new(Spectral::new(settings))) }),
            Some((setting, fault)) => Err(FeatureError::Settings { setting, fault }),
        }
    }

    /// Kaldi's filter banks, or cepstra.
    ///
    /// # Errors
    /// Settings that contradict themselves.
    pub fn kaldi(settings: Fbank) -> Result<Self, FeatureError> {
        match settings.fault() {
            None => Ok(Self { kind: Kind::Kaldi(Box::new(Kaldi::new(settings))) }),
            Some((setting, fault)) => Err(FeatureError::Settings { setting, fault }),
        }
    }

    /// The rate that recordings must have, in hertz.
    pub fn sample_rate(&self) -> u32 {
        match &self.kind {
            Kind::Spectral(s) => s.settings.sample_rate,
            Kind::Kaldi(k) => k.settings.sample_frequency,
        }
    }

    /// Samples from frame to frame.
    pub fn hop(&self) -> usize {
        match &self.kind {
            Kind::Spectral(s) => s.settings.hop,
            Kind::Kaldi(k) => k.settings.hop(),
        }
    }

    /// Features of a frame.
    pub fn width(&self) -> usize {
        match &self.kind {
            Kind::Spectral(s) => s.settings.width(),
            Kind::Kaldi(k) => k.settings.width(),
        }
    }

    /// How many frames of a recording of so many samples count.
    pub fn frames(&self, samples: usize) -> usize {
        match &self.kind {
            Kind::Spectral(s) => s.settings.frames(samples.max(s.settings.least_samples)),
            Kind::Kaldi(k) => k.settings.frames(samples),
        }
    }

    /// How many frames a batch has whose longest recording has so many samples: as many as its sound
    /// fills, where the settings say so more.
    pub fn room(&self, samples: usize) -> usize {
        match &self.kind {
            Kind::Spectral(s) => s.settings.room(samples.max(LEAST * s.settings.hop)),
            Kind::Kaldi(k) => (samples / k.settings.hop() + 1).max(LEAST),
        }
    }

    /// The settings, of features of spectra.
    pub fn settings(&self) -> Option<&Settings> {
        match &self.kind {
            Kind::Spectral(s) => Some(&s.settings),
            Kind::Kaldi(_) => None,
        }
    }

    /// Recordings of any lengths as the arguments of [`forward`](Self::forward).
    pub fn pack(&self, recordings: &[&[f32]]) -> (SoundArray, SampleCountArray) {
        let longest = recordings.iter().map(|r| r.len()).max().unwrap_or(0);
        self.pack_to(recordings, self.room(longest))
    }

    /// The same with so many frames, of which there are at least as many as the recordings need:
    /// batches of one size share a program's plan.
    ///
    /// # Panics
    /// Where a recording is longer.
    pub fn pack_to(&self, recordings: &[&[f32]], frames: usize) -> (SoundArray, SampleCountArray) {
        let hop = self.hop();
        let least = self.settings().map_or(0, |s| s.least_samples);
        let mut data = vec![0.0; recordings.len() * frames * hop];
        for (row, recording) in data.chunks_exact_mut((frames * hop).max(1)).zip(recordings) {
            row[..recording.len()].copy_from_slice(recording);
        }
        let counts = recordings.iter().map(|r| r.len().max(least) as i32).collect();
        (Array::from_parts(&[recordings.len(), frames, hop], data), Array::from_parts(&[recordings.len()], counts))
    }
}

/// Each recording of `[Batch, Samples]` shifted and scaled to mean 0 and variance 1 over its own
/// samples, zeros behind: what Wav2Vec2 hears. Hugging Face's `Wav2Vec2FeatureExtractor` with
/// `do_normalize`.
pub fn normalized(x: Tensor<(Batch, Samples)>, samples: SampleCounts) -> Tensor<(Batch, Samples)> {
    let (x, counts) = (x.raw(), samples.raw());
    let ty = type_of(x);
    let n = ew::maximum(ew::cast(counts, ty.dtype), leaf::scalar(1.0));
    let mean = |h: Handle| {
        let sum = reduce::reduce(frames::masked(h, counts, 0.0), reduce::Kind::Sum, &[1]);
        reduce::restore(ew::div(sum, n), &ty.dims, &[1])
    };
    let away = ew::sub(x, mean(x));
    let variance = mean(ew::mul(away, away));
    let y = ew::mul(away, ew::powf(ew::add(variance, leaf::scalar(1e-7)), -0.5));
    Tensor::from_raw(frames::masked(y, counts, 0.0))
}
