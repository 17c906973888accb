//! Banks of triangular filters over the bins of a spectrum, in double precision.
//!
//! A filter rises from its lower neighbour's centre to its own and falls to its upper neighbour's.
//! Centres lie evenly on a scale of pitch:
//!
//! - Slaney's, as librosa and NeMo have it (Auditory Toolbox, 1998): linear up to 1 kHz,
//!   logarithmic above. Its norm divides each filter by half its width in hertz, so that all pass equally much
//!   energy.
//! - HTK's (Young et al., the HTK book): `2595 log10(1 + f / 700)`, as torchaudio's default.
//! - Kaldi's: the same scale as `1127 ln(1 + f / 700)`, and sides that are straight on it rather
//!   than in hertz.

use std::f64::consts::LN_10;

/// A scale of pitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scale {
    /// Slaney's, librosa's default.
    #[default]
    Slaney,
    /// HTK's, torchaudio's default.
    Htk,
    /// HTK's with sides that are straight on it, Kaldi's.
    Kaldi,
}

/// Slaney's: hertz a step below 1 kHz, and the logarithm of what a step multiplies by above.
const LINEAR: f64 = 200.0 / 3.0;
const CORNER: f64 = 1000.0;

fn step() -> f64 {
    6.4f64.ln() / 27.0
}

impl Scale {
    /// The pitch of a frequency in hertz.
    pub fn pitch(self, hertz: f64) -> f64 {
        match self {
            Scale::Slaney if hertz >= CORNER => CORNER / LINEAR + (hertz / CORNER).ln() / step(),
            Scale::Slaney => hertz / LINEAR,
            Scale::Htk => 2595.0 * (1.0 + hertz / 700.0).ln() / LN_10,
            Scale::Kaldi => 1127.0 * (1.0 + hertz / 700.0).ln(),
        }
    }

    /// The frequency in hertz of a pitch.
    pub fn hertz(self, pitch: f64) -> f64 {
        match self {
            Scale::Slaney if pitch >= CORNER / LINEAR => CORNER * (step() * (pitch - CORNER / LINEAR)).exp(),
            Scale::Slaney => pitch * LINEAR,
            Scale::Htk => 700.0 * ((pitch * LN_10 / 2595.0).exp() - 1.0),
            Scale::Kaldi => 700.0 * ((pitch / 1127.0).exp() - 1.0),
        }
    }
}

/// What a bank is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bank {
    /// How many filters.
    pub filters: usize,
    /// The length of the transform whose `length / 2 + 1` bins are filtered.
    pub length: usize,
    /// The sampling rate in hertz.
    pub rate: f64,
    /// Where the first filter begins, in hertz.
    pub low: f64,
    /// Where the last filter ends, in hertz.
    pub high: f64,
    /// The scale.
    pub scale: Scale,
    /// Whether filters are divided by half their width (Slaney's norm).
    pub norm: bool,
}

impl Bank {
    /// The weights `[filters, length / 2 + 1]`, row-major.
    pub fn weights(&self) -> Vec<f64> {
        let bins = self.length / 2 + 1;
        let (low, high) = (self.scale.pitch(self.low), self.scale.pitch(self.high));
        let place = |i: usize| low + (high - low) * i as f64 / (self.filters + 1) as f64;
        let mut out = Vec::with_capacity(self.filters * bins);
        for m in 0..self.filters {
            let hertz = [0, 1, 2].map(|i| self.scale.hertz(place(m + i)));
            let points = if self.scale == Scale::Kaldi { [0, 1, 2].map(|i| place(m + i)) } else { hertz };
            let norm = if self.norm { 2.0 / (hertz[2] - hertz[0]) } else { 1.0 };
            out.extend((0..bins).map(|k| {
                let frequency = k as f64 * self.rate / self.length as f64;
                let at = if self.scale == Scale::Kaldi { self.scale.pitch(frequency) } else { frequency };
                let rise = (at - points[0]) / (points[1] - points[0]);
                let fall = (points[2] - at) / (points[2] - points[1]);
                // Kaldi leaves out the bin of half the sampling rate.
                let last = self.scale == Scale::Kaldi && k == self.length / 2;
                if last { 0.0 } else { rise.min(fall).max(0.0) * norm }
            }));
        }
        out
    }
}

/// The orthonormal discrete cosine transform (type 2) of `n` values, its first `kept` rows:
/// `[kept, n]`.
pub fn cosines(kept: usize, n: usize) -> Vec<f64> {
    let scale = |k: usize| ((if k == 0 { 1.0 } else { 2.0 }) / n as f64).sqrt();
    let value = |k: usize, i: usize| scale(k) * (std::f64::consts::PI / n as f64 * (i as f64 + 0.5) * k as f64).cos();
    (0..kept).flat_map(|k| (0..n).map(move |i| value(k, i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_invert_themselves() {
        for scale in [Scale::Slaney, Scale::Htk, Scale::Kaldi] {
            for hertz in [0.0, 20.0, 440.0, 999.9, 1000.0, 4000.0, 8000.0] {
                assert!((scale.hertz(scale.pitch(hertz)) - hertz).abs() < 1e-9, "{scale:?} {hertz}");
            }
        }
        // librosa.hz_to_mel(60) = 0.9, librosa.hz_to_mel(4000) and htk=True.
        assert!((Scale::Slaney.pitch(60.0) - 0.9).abs() < 1e-12);
        assert!((Scale::Slaney.pitch(4000.0) - 35.163_760_314_616_23).abs() < 1e-9);
        assert!((Scale::Htk.pitch(4000.0) - 2146.064527506).abs() < 1e-6);
    }

    #[test]
    fn rows_of_cosines_are_orthonormal() {
        let c = cosines(5, 8);
        for a in 0..5 {
            for b in 0..5 {
                let dot: f64 = (0..8).map(|i| c[a * 8 + i] * c[b * 8 + i]).sum();
                assert!((dot - f64::from(u8::from(a == b))).abs() < 1e-12);
            }
        }
    }
}
