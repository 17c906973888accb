//! What can happen to a recording: NeMo's perturbations (`perturb.py`), under its names.

use super::draw::Draw;
use super::g711::Law;
use super::sounds::Sounds;
use super::stretch::{convolve, time_stretch};
use crate::audio::{AudioError, resample};

/// A choice of rates: `count` of them evenly from `low` to `high`, or any between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The slowest.
    pub low: f64,
    /// The fastest.
    pub high: f64,
    /// How many; none for any.
    pub count: Option<usize>,
}

impl Rates {
    fn draw(&self, draw: &mut Draw) -> f64 {
        match self.count {
            Some(n @ 2..) => self.low + (self.high - self.low) * draw.below(n) as f64 / (n - 1) as f64,
            Some(_) => self.low,
            None => draw.uniform(self.low, self.high),
        }
    }
}

/// Noise at a ratio to speech.
#[derive(Clone, Debug)]
pub struct Noise {
    /// What is mixed in.
    pub sounds: Sounds,
    /// Signal over noise in decibels, from ..
    pub min_snr_db: f64,
    /// .. to.
    pub max_snr_db: f64,
    /// The most that noise is made louder, in decibels.
    pub max_gain_db: f64,
}

/// The answer of a room.
#[derive(Clone, Debug)]
pub struct Impulse {
    /// Answers.
    pub sounds: Sounds,
    /// Whether they are scaled to 0 .. 1.
    pub normalize: bool,
    /// Whether their largest value is moved to the start, so that the recording does not shift.
    pub shift: bool,
}

/// One thing that may happen.
#[derive(Clone, Debug)]
pub enum Step {
    /// Faster or slower, pitch included: a rate of 1.1 is a tenth faster. (NeMo's is slower.)
    Speed(Rates),
    /// Faster or slower at the same pitch.
    TimeStretch {
        /// How fast.
        rates: Rates,
        /// The length of transforms.
        n_fft: usize,
    },
    /// Louder or softer, by decibels from .. to.
    Gain {
        /// From.
        low: f64,
        /// To.
        high: f64,
    },
    /// Silence before and after, in seconds from .. to.
    Silence {
        /// Before.
        start: [f64; 2],
        /// After.
        end: [f64; 2],
        /// What silence is.
        value: f32,
    },
    /// A room.
    Impulse(Impulse),
    /// Later or earlier, by milliseconds from .. to; zeros come in.
    Shift {
        /// From.
        low: f64,
        /// To.
        high: f64,
    },
    /// Noise.
    Noise(Noise),
    /// Noise, and all scaled to a loudness in decibels; by its own where none is given.
    NoiseNorm {
        /// The noise.
        noise: Noise,
        /// How loud speech and mixture are.
        norm_to_db: Option<f64>,
    },
    /// White noise, of a level in decibels from .. to.
    WhiteNoise {
        /// From.
        low: f64,
        /// To.
        high: f64,
    },
    /// A room, then noises, each in a room of its own if need be.
    RirNoise {
        /// The room, and how probable it is.
        room: Option<(f64, Impulse)>,
        /// Noises, each with its probability.
        noises: Vec<(f64, Noise)>,
    },
    /// Through a telephone.
    Transcode(Vec<Law>),
    /// A part of so many seconds, anywhere; shorter recordings are filled up or refused.
    RandomSegment {
        /// Seconds.
        duration: f64,
        /// Whether short ones are filled up with zeros.
        pad: bool,
    },
}

/// The mean of squares in decibels; of silence, far below anything.
fn decibels(samples: &[f32]) -> f64 {
    let power = samples.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    10.0 * power.max(1e-20).log10()
}

fn scale(samples: &mut [f32], decibels: f64) {
    let factor = 10f64.powf(decibels / 20.0) as f32;
    samples.iter_mut().for_each(|v| *v *= factor);
}

impl Impulse {
    fn apply(&self, samples: &[f32], rate: u32, draw: &mut Draw) -> Result<Vec<f32>, AudioError> {
        let mut answer = self.sounds.pick(draw, rate, None)?;
        let (low, high) = answer.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        if answer.is_empty() || low == high {
            return Ok(samples.to_vec());
        }
        if self.normalize {
            answer.iter_mut().for_each(|v| *v = (*v - low) / (high - low));
        }
        let first = if self.shift {
            // Samples before the loudest are left out: they would come before the sound.
            let loudest =
                answer.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).map_or(0, |(i, _)| i);
            answer.drain(..loudest);
            0
        } else {
            (answer.len() - 1) / 2
        };
        Ok(convolve(samples, &answer)[first..first + samples.len()].to_vec())
    }
}

impl Noise {
    /// Adds noise to samples whose speech is so loud; recordings shorter than the speech come somewhere in it.
    fn apply(&self, samples: &mut [f32], loud: f64, rate: u32, draw: &mut Draw) -> Result<(), AudioError> {
        let ratio = draw.uniform(self.min_snr_db, self.max_snr_db);
        let mut noise = self.sounds.pick(draw, rate, Some(samples.len()))?;
        noise.truncate(samples.len());
        let gain = (loud - decibels(&noise) - ratio).min(self.max_gain_db);
        scale(&mut noise, gain);
        let start = draw.below(samples.len() - noise.len() + 1);
        samples[start..].iter_mut().zip(&noise).for_each(|(s, n)| *s += n);
        Ok(())
    }
}

impl Step {
    /// Does it.
    ///
    /// # Errors
    /// Recordings to be mixed in that cannot be read, a recording shorter than the part asked for.
    pub(super) fn apply(&self, mut samples: Vec<f32>, rate: u32, draw: &mut Draw) -> Result<Vec<f32>, AudioError> {
        // Nothing can be done with nothing, but to make it longer.
        if samples.is_empty() && !matches!(self, Step::Silence { .. } | Step::RandomSegment { .. }) {
            return Ok(samples);
        }
        match self {
            Step::Speed(rates) => {
                let by = rates.draw(draw);
                // Faster is fewer samples: as if it had been recorded at a higher rate.
                let from = (f64::from(rate) * by).round() as u32;
                resample(&samples, from, rate)
            }
            Step::TimeStretch { rates, n_fft } => Ok(match rates.draw(draw) {
                1.0 => samples,
                by => time_stretch(&samples, by, *n_fft),
            }),
            Step::Gain { low, high } => {
                scale(&mut samples, draw.uniform(*low, *high));
                Ok(samples)
            }
            Step::Silence { start, end, value } => {
                let mut count = |[low, high]: [f64; 2]| (draw.uniform(low, high) * f64::from(rate)) as usize;
                let (before, after) = (count(*start), count(*end));
                let mut longer = vec![*value; before];
                longer.extend(samples);
                longer.resize(longer.len() + after, *value);
                Ok(longer)
            }
            Step::Impulse(impulse) => impulse.apply(&samples, rate, draw),
            Step::Shift { low, high } => {
                let by = (draw.uniform(*low, *high) * f64::from(rate) / 1000.0) as i64;
                let count = by.unsigned_abs() as usize;
                if count < samples.len() {
                    let all = samples.len();
                    if by > 0 {
                        samples.copy_within(count.., 0);
                        samples[all - count..].fill(0.0);
                    } else {
                        samples.copy_within(..all - count, count);
                        samples[..count].fill(0.0);
                    }
                }
                Ok(samples)
            }
            Step::Noise(noise) => {
                let loud = decibels(&samples);
                noise.apply(&mut samples, loud, rate, draw)?;
                Ok(samples)
            }
            Step::NoiseNorm { noise, norm_to_db } => {
                let loud = norm_to_db.unwrap_or_else(|| decibels(&samples));
                let own = decibels(&samples);
                scale(&mut samples, loud - own);
                noise.apply(&mut samples, loud, rate, draw)?;
                let mixed = decibels(&samples);
                scale(&mut samples, loud - mixed);
                Ok(samples)
            }
            Step::WhiteNoise { low, high } => {
                let level = 10f64.powf(draw.uniform(*low, *high) / 20.0);
                samples.iter_mut().for_each(|v| *v += (draw.normal() * level) as f32);
                Ok(samples)
            }
            Step::RirNoise { room, noises } => {
                if let Some((probability, room)) = room
                    && draw.unit() < *probability
                {
                    samples = room.apply(&samples, rate, draw)?;
                }
                let loud = decibels(&samples);
                for (probability, noise) in noises {
                    if draw.unit() < *probability {
                        noise.apply(&mut samples, loud, rate, draw)?;
                    }
                }
                Ok(samples)
            }
            Step::Transcode(laws) => {
                let law = laws[draw.below(laws.len())];
                let mut narrow = resample(&samples, rate, 8_000)?;
                narrow.iter_mut().for_each(|v| *v = law.decode(law.encode(*v)));
                let mut wide = resample(&narrow, 8_000, rate)?;
                wide.resize(samples.len(), 0.0);
                Ok(wide)
            }
            Step::RandomSegment { duration, pad } => {
                let count = (duration * f64::from(rate)).round() as usize;
                match samples.len().checked_sub(count) {
                    Some(spare) => {
                        let start = draw.below(spare + 1);
                        Ok(samples[start..start + count].to_vec())
                    }
                    None if *pad => {
                        samples.resize(count, 0.0);
                        Ok(samples)
                    }
                    None => Err(AudioError::Format {
                        place: "a recording to be augmented".into(),
                        fault: format!(
                            "`random_segment` takes {duration} s of it, it lasts {:.3} s; `pad_to_duration: true` fills it up",
                            samples.len() as f64 / f64::from(rate)
                        ),
                    }),
                }
            }
        }
    }
}
