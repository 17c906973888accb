//! Another sampling rate, block by block.
//!
//! Rubato's `Fft` does the work: each block of the input is transformed, multiplied by a windowed
//! sinc's transform that ends below the lower of the two Nyquist frequencies, cut or extended to
//! the other rate, and transformed back; blocks overlap and add. Around it this file does what
//! makes the result a recording again: blocks of any length go in, the filter's delay is taken
//! off, and `n` samples become `ceil(n · to / from)`.
//!
//! The filter is symmetric with an even number of taps, so the delay is a whole number of samples
//! at both rates and sound does not shift. It is at least 1024 samples of the lower rate long: flat
//! (0.01 dB) to 0.95 of its Nyquist frequency, and aliases lie below -100 dB.

use super::AudioError;
use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler as _};
use std::ops::RangeInclusive;

/// The rates between which can be resampled, in hertz.
pub(super) const RATES: RangeInclusive<u32> = 1_000..=768_000;

/// How long filters are, in samples of the lower rate.
const TAPS: usize = 1024;

/// Changes the sampling rate of a recording that comes in blocks.
pub struct Resampler {
    from: u32,
    to: u32,
    /// None where nothing is to be done.
    fft: Option<Fft<f32>>,
    /// What waits for a whole block.
    waiting: [Vec<f32>; 1],
    /// A block that came out.
    block: [Vec<f32>; 1],
    /// Samples of the filter's delay still to be dropped.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// From one rate to another, in hertz.
    ///
    /// # Errors
    /// A rate below 1 kHz or above 768 kHz.
    pub fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        for rate in [from, to] {
            if !RATES.contains(&rate) {
                return Err(AudioError::Rate { place: "the recording".into(), rate });
            }
        }
        let mut resampler =
            Self { from, to, fft: None, waiting: [Vec::new()], block: [Vec::new()], delay: 0, taken: 0, given: 0 };
        if from != to {
            let (least_in, least_out) = reduced(from, to);
            let mut times = TAPS.div_ceil(least_in.min(least_out));
            times += times % 2;
            let fft = Fft::new_custom(
                from as usize,
                to as usize,
                times * least_in,
                1,
                1,
                rubato::WindowFunction::BlackmanHarris2,
                FixedSync::Both,
            )
            .expect("rates and sizes are not zero");
            resampler.delay = fft.output_delay();
            resampler.block[0] = vec![0.0; fft.output_frames_max()];
            resampler.fft = Some(fft);
        }
        Ok(resampler)
    }

    /// Takes the next samples and appends what they give to `out`.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        let Some(size) = self.fft.as_ref().map(|fft| fft.input_frames_next()) else {
            out.extend_from_slice(samples);
            return;
        };
        let mut rest = samples;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(size - self.waiting[0].len()));
            self.waiting[0].extend_from_slice(now);
            rest = later;
            if self.waiting[0].len() == size {
                self.transform(out);
            }
        }
    }

    /// Appends what is left to `out` and makes ready for another recording.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(fft) = &self.fft else { return };
        let size = fft.input_frames_next();
        let promised = length(self.taken, self.from, self.to);
        while self.given < promised {
            self.waiting[0].resize(size, 0.0);
            self.transform(out);
        }
        let excess = (self.given - promised) as usize;
        out.truncate(out.len().saturating_sub(excess));
        (self.taken, self.given) = (0, 0);
        self.waiting[0].clear();
        if let Some(fft) = &mut self.fft {
            fft.reset();
            self.delay = fft.output_delay();
        }
    }

    /// One block through the filter.
    fn transform(&mut self, out: &mut Vec<f32>) {
        let Some(fft) = &mut self.fft else { return };
        let Self { waiting, block, delay, .. } = self;
        let (size, most) = (waiting[0].len(), block[0].len());
        let input = SequentialSliceOfVecs::new(&waiting[..], 1, size).expect("one channel of this size");
        let mut output = SequentialSliceOfVecs::new_mut(&mut block[..], 1, most).expect("one channel of this size");
        let (_, made) = fft.process_into_buffer(&input, &mut output, None).expect("buffers have the sizes asked for");
        let dropped = (*delay).min(made);
        *delay -= dropped;
        out.extend_from_slice(&block[0][dropped..made]);
        self.given += (made - dropped) as u64;
        waiting[0].clear();
    }
}

/// A whole recording at another rate: `n` samples become `ceil(n · to / from)`.
///
/// # Errors
/// A rate below 1 kHz or above 768 kHz.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    let mut resampler = Resampler::new(from, to)?;
    let mut out = Vec::with_capacity(length(samples.len() as u64, from, to) as usize);
    resampler.push(samples, &mut out);
    resampler.finish(&mut out);
    Ok(out)
}

/// How many samples `n` become.
pub(super) fn length(n: u64, from: u32, to: u32) -> u64 {
    (u128::from(n) * u128::from(to)).div_ceil(u128::from(from)) as u64
}

/// Both rates without their common factors.
fn reduced(from: u32, to: u32) -> (usize, usize) {
    let (mut a, mut b) = (from, to);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    ((from / a) as usize, (to / a) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate: u32, hertz: f64, seconds: f64) -> Vec<f32> {
        let step = std::f64::consts::TAU * hertz / f64::from(rate);
        (0..(f64::from(rate) * seconds) as usize).map(|i| (0.5 * (step * i as f64).sin()) as f32).collect()
    }

    /// The root of the mean square away from the ends, in dB below a sine's.
    fn decibels(x: &[f32]) -> f64 {
        let middle = &x[x.len() / 4..x.len() * 3 / 4];
        let power: f64 = middle.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / middle.len() as f64;
        10.0 * (power / 0.125).log10()
    }

    const PAIRS: [(u32, u32); 9] = [
        (44_100, 16_000),
        (48_000, 16_000),
        (8_000, 16_000),
        (11_025, 16_000),
        (22_050, 16_000),
        (384_000, 16_000),
        (4_000, 16_000),
        (16_000, 22_050),
        (384_000, 4_000),
    ];

    #[test]
    fn sines_below_the_limit_pass_in_place_and_size() {
        for (from, to) in PAIRS {
            for share in [0.01, 0.3, 0.8, 0.95] {
                let hertz = share * f64::from(from.min(to)) / 2.0;
                let made = resample(&sine(from, hertz, 2.0), from, to).unwrap();
                let expected = sine(to, hertz, 2.0);
                assert_eq!(made.len(), expected.len(), "{from} to {to}");
                let worst = made.iter().zip(&expected).skip(made.len() / 4).take(made.len() / 2);
                let worst = worst.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // 0.01 dB of 0.5.
                assert!(worst < 6e-4, "{hertz} Hz from {from} to {to} is off by {worst}");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_vanishes() {
        for (from, to) in PAIRS.into_iter().filter(|(from, to)| from > to) {
            for share in [1.01, 1.1, 1.5] {
                let hertz = share * f64::from(to) / 2.0;
                if hertz < f64::from(from) / 2.0 {
                    let left = decibels(&resample(&sine(from, hertz, 2.0), from, to).unwrap());
                    assert!(left < -100.0, "{hertz} Hz from {from} to {to} leaves {left} dB");
                }
            }
        }
    }

    #[test]
    fn blocks_of_any_length_give_the_same() {
        let x = sine(44_100, 440.0, 0.5);
        let whole = resample(&x, 44_100, 16_000).unwrap();
        let mut resampler = Resampler::new(44_100, 16_000).unwrap();
        for sizes in [&[1usize, 3, 1000, 7][..], &[5000], &[441]] {
            let (mut out, mut rest, mut turn) = (Vec::new(), &x[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*turn.next().unwrap()));
                resampler.push(now, &mut out);
                rest = later;
            }
            resampler.finish(&mut out);
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn lengths_are_exact() {
        // Rates without a common factor have blocks of a second.
        let odd = [(16_000, 16_000), (15_999, 16_000)];
        for (from, to) in PAIRS.into_iter().chain(odd) {
            for n in [0, 1, 161, 10_000] {
                let made = resample(&vec![0.5; n], from, to).unwrap();
                assert_eq!(made.len() as u64, length(n as u64, from, to), "{n} from {from} to {to}");
            }
        }
        for rate in [0, 999, 768_001, u32::MAX] {
            assert!(resample(&[0.0], rate, 16_000).is_err());
            assert!(resample(&[0.0], 16_000, rate).is_err());
        }
    }
}
