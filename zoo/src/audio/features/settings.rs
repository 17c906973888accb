//! What features are, as numbers: one description for all that are made of centred spectra.
//!
//! NeMo's spectrograms and MFCC, Whisper's, Parakeet's and librosa's differ in these settings
//! alone, so they are constructors here and one graph ([`super::spectral`]). Kaldi's, whose frames
//! are prepared one by one, have their own ([`super::kaldi`]).

use super::filters::{Bank, Scale};
use super::window::Shape;

/// What lies beyond the ends of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Zeros.
    Zeros,
    /// The recording mirrored at its own first and last sample, whatever else is in the batch.
    Mirror,
}

/// What is taken of filtered energies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Log {
    /// The energies themselves.
    None,
    /// `ln(x + guard)`
    Added(f64),
    /// `ln(max(x, guard))`
    Clamped(f64),
    /// `log10(max(x, 1e-10))`, at most 8 below the recording's largest, then `(x + 4) / 4`.
    Whisper,
    /// Decibels, `10 log10(max(x, 1e-10))`, at most so many below the recording's largest.
    Decibels(f64),
}

/// How features are shifted and scaled in the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Normalize {
    /// Not at all.
    None,
    /// Each feature to mean 0 and deviation 1 over the recording.
    PerFeature,
    /// All together to mean 0 and deviation 1 over the recording.
    AllFeatures,
    /// By given means and deviations.
    Fixed {
        /// One for each feature.
        mean: Vec<f32>,
        /// One for each feature.
        std: Vec<f32>,
    },
}

/// How many frames of a recording count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// `floor((samples + 2 pad - n_fft) / hop)`: NeMo since 2.5.
    Whole,
    /// One more: every frame whose centre lies within. NeMo up to 2.4, librosa.
    Centred,
    /// `ceil(samples / hop)`: NeMo's MFCC.
    Begun,
}

/// Features of spectra.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The rate of recordings, in hertz.
    pub sample_rate: u32,
    /// Samples of a window.
    pub window_length: usize,
    /// Its shape.
    pub window: Shape,
    /// Whether its period is its length rather than one less.
    pub periodic: bool,
    /// The length of the transform, zeros around the window.
    pub n_fft: usize,
    /// Samples from frame to frame.
    pub hop: usize,
    /// Samples before the first and after the last of a recording.
    pub pad: usize,
    /// What they are.
    pub beyond: Beyond,
    /// The deviation of noise that is added in training.
    pub dither: f64,
    /// `x[t] - this · x[t - 1]`
    pub preemphasis: Option<f64>,
    /// Magnitudes to this power are filtered.
    pub power: f64,
    /// How many filters.
    pub mels: usize,
    /// Where the first begins, in hertz.
    pub low: f64,
    /// Where the last ends, in hertz.
    pub high: f64,
    /// Their scale.
    pub scale: Scale,
    /// Whether they are divided by their widths.
    pub norm: bool,
    /// What is taken of energies.
    pub log: Log,
    /// How many cosine coefficients are taken of the logarithms, where they are.
    pub cepstra: Option<usize>,
    /// How often features stand beside themselves (NeMo's `frame_splicing`).
    pub splicing: usize,
    /// How they are scaled.
    pub normalize: Normalize,
    /// How many frames count.
    pub counted: Counted,
    /// What stands in frames that do not count.
    pub pad_value: f64,
    /// Batches are filled up to a multiple of so many frames.
    pub pad_to: usize,
    /// Batches are filled up to so many samples.
    pub least_samples: usize,
    /// In training, with this probability, all above a frequency in hertz is taken away.
    pub narrow: Option<(f64, f64)>,
}

impl Settings {
    /// NeMo's `AudioToMelSpectrogramPreprocessor` with its defaults, for 16 kHz.
    pub fn nemo(version: Version) -> Self {
        Self {
            sample_rate: 16_000,
            window_length: 320,
            window: Shape::Hann,
            periodic: false,
            n_fft: 512,
            hop: 160,
            pad: 256,
            beyond: if version.mirrors() { Beyond::Mirror } else { Beyond::Zeros },
            dither: 1e-5,
            preemphasis: Some(0.97),
            power: 2.0,
            mels: 64,
            low: 0.0,
            high: 8_000.0,
            scale: Scale::Slaney,
            norm: true,
            log: Log::Added(0.5f64.powi(24)),
            cepstra: None,
            splicing: 1,
            normalize: Normalize::PerFeature,
            counted: if version.mirrors() { Counted::Centred } else { Counted::Whole },
            pad_value: 0.0,
            pad_to: 16,
            least_samples: 0,
            narrow: None,
        }
    }

    /// NeMo's `AudioToMFCCPreprocessor` with its defaults, for 16 kHz: torchaudio's MFCC.
    pub fn mfcc() -> Self {
        Self {
            periodic: true,
            beyond: Beyond::Mirror,
            dither: 0.0,
            preemphasis: None,
            scale: Scale::Htk,
            norm: false,
            log: Log::Added(1e-6),
            cepstra: Some(64),
            normalize: Normalize::None,
            counted: Counted::Begun,
            pad_to: 1,
            ..Self::nemo(Version::NEW)
        }
    }

    /// Whisper's log-mel spectrograms of windows of 30 s, of 80 or (large-v3) 128 bands.
    pub fn whisper(bands: usize) -> Self {
        Self {
            window_length: 400,
            n_fft: 400,
            pad: 200,
            log: Log::Whisper,
            mels: bands,
            cepstra: None,
            scale: Scale::Slaney,
            norm: true,
            counted: Counted::Whole,
            least_samples: 480_000,
            ..Self::mfcc()
        }
    }

    /// `librosa.feature.melspectrogram` with its defaults for a length of transform, a hop and a
    /// number of bands: powers without logarithm. Resemblyzer's are `librosa(16000, 400, 160, 40)`.
    pub fn librosa(sample_rate: u32, n_fft: usize, hop: usize, bands: usize) -> Self {
        Self {
            sample_rate,
            window_length: n_fft,
            n_fft,
            hop,
            pad: n_fft / 2,
            beyond: Beyond::Zeros,
            mels: bands,
            high: f64::from(sample_rate) / 2.0,
            log: Log::None,
            counted: Counted::Centred,
            least_samples: 0,
            ..Self::whisper(bands)
        }
    }

    /// Features of a frame.
    pub fn width(&self) -> usize {
        self.cepstra.unwrap_or(self.mels) * self.splicing
    }

    /// How many frames of a recording of so many samples count.
    pub fn frames(&self, samples: usize) -> usize {
        if samples == 0 {
            return 0;
        }
        let room = samples + 2 * self.pad;
        match self.counted {
            Counted::Whole => room.saturating_sub(self.n_fft) / self.hop,
            Counted::Centred if room < self.n_fft => 0,
            Counted::Centred => (room - self.n_fft) / self.hop + 1,
            Counted::Begun => samples.div_ceil(self.hop),
        }
    }

    /// How many frames a batch has whose longest recording has so many samples.
    pub fn room(&self, samples: usize) -> usize {
        let samples = samples.max(self.least_samples);
        let exact = self.least_samples > 0 && samples.is_multiple_of(self.hop);
        let frames = if exact { samples / self.hop } else { samples / self.hop + 1 };
        frames.next_multiple_of(self.pad_to.max(1))
    }

    /// The filters `[mels, n_fft / 2 + 1]`, row-major.
    pub fn filters(&self) -> Vec<f32> {
        let bank = Bank {
            filters: self.mels,
            length: self.n_fft,
            rate: f64::from(self.sample_rate),
            low: self.low,
            high: self.high,
            scale: self.scale,
            norm: self.norm,
        };
        bank.weights().into_iter().map(|v| v as f32).collect()
    }

    /// The window, of `window_length` values.
    pub fn window(&self) -> Vec<f32> {
        self.window.values(self.window_length, self.periodic).into_iter().map(|v| v as f32).collect()
    }

    /// What cannot be computed, in words.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let nyquist = f64::from(self.sample_rate) / 2.0;
        let most = 1 << 20;
        if !(1..=most).contains(&self.hop) {
            return Some(("window_stride", format!("{} samples, 1 to {most} are possible", self.hop)));
        }
        if self.window_length == 0 || self.window_length > self.n_fft {
            return Some(("n_fft", format!("{}, and the window has {} samples", self.n_fft, self.window_length)));
        }
        if self.n_fft > most {
            return Some(("n_fft", format!("{}, more than {most}", self.n_fft)));
        }
        if self.n_fft > 2 * self.pad + self.hop {
            return Some(("n_fft", format!("{}, longer than a hop of {} with its padding", self.n_fft, self.hop)));
        }
        if self.mels == 0 || self.mels > 8192 || self.splicing == 0 || self.splicing > 64 {
            return Some(("features", format!("{} filters", self.mels)));
        }
        if self.cepstra.is_some_and(|n| n == 0 || n > self.mels) {
            return Some(("n_mfcc", format!("{:?} coefficients of {} filters", self.cepstra, self.mels)));
        }
        if !(0.0 <= self.low && self.low < self.high && self.high <= nyquist + 1e-9) {
            return Some(("highfreq", format!("{} to {} Hz within 0 to {nyquist} Hz", self.low, self.high)));
        }
        None
    }
}

/// A version of NeMo: until 2.4 recordings were mirrored at their ends and had a frame more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// The behaviour since 2.5.
    pub const NEW: Self = Self { major: 2, minor: 5 };
    /// The behaviour up to 2.4.
    pub const OLD: Self = Self { major: 2, minor: 4 };

    /// From `nemo_version` of a model's configuration, `1.20.0rc0` for example; none or nonsense is
    /// an old one, as the first versions wrote none.
    pub fn parse(text: Option<&str>) -> Self {
        let mut parts = text.unwrap_or("").trim_start_matches(['v', 'r']).split('.').map(|p| {
            let digits: String = p.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        });
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), minor) => Self { major, minor: minor.unwrap_or(0) },
            _ => Self::OLD,
        }
    }

    fn mirrors(self) -> bool {
        self < Self::NEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        for (text, old) in [
            ("1.0.0", true),
            ("1.23.0rc0", true),
            ("2.4.1", true),
            ("2.5.0", false),
            ("2.5.0rc0", false),
            ("3.0.0", false),
            ("2.10", false),
            ("", true),
            ("main", true),
        ] {
            assert_eq!(Version::parse(Some(text)).mirrors(), old, "{text}");
        }
        assert!(Version::parse(None).mirrors());
    }
}
