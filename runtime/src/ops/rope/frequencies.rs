//! The frequencies of rotary embeddings and their scalings, as Hugging Face's
//! `modeling_rope_utils.py` defines them (its names in brackets).

use crate::graph::Extent;
use std::f64::consts::PI;

/// Base, part and scaling of rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// The base: pair `i` of `half` turns by `theta^(-i / half)` radians per position
    /// (`rope_theta`).
    pub theta: f64,
    /// The part of the features that is rotated, 0 to 1 (`partial_rotary_factor`).
    pub partial: f64,
    /// How frequencies are stretched to longer texts (`rope_type`).
    pub scaling: Scaling,
}

impl Default for Rotary {
    /// Base 10000, all features, no scaling.
    fn default() -> Self {
        Rotary { theta: 10_000.0, partial: 1.0, scaling: Scaling::None }
    }
}

/// How the frequencies of a model trained on short texts are stretched to longer ones.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Scaling {
    /// As trained (`default`).
    #[default]
    None,
    /// All frequencies divided by `factor` (`linear`; Chen et al. 2023).
    Linear {
        /// How many times longer.
        factor: f64,
    },
    /// A larger base once the text is longer than `original` positions (`dynamic`).
    Dynamic {
        /// How many times longer.
        factor: f64,
        /// Positions in training (`max_position_embeddings`).
        original: f64,
    },
    /// Long wavelengths divided by `factor`, short ones kept, smooth between (`llama3`).
    Llama3 {
        /// How many times longer.
        factor: f64,
        /// Wavelengths above `original / low` are divided (`low_freq_factor`).
        low: f64,
        /// Wavelengths below `original / high` are kept (`high_freq_factor`).
        high: f64,
        /// Positions in training (`original_max_position_embeddings`).
        original: f64,
    },
    /// Interpolation by parts and warmer attention (`yarn`; Peng et al. 2023).
    Yarn(Yarn),
    /// A divisor for each pair, one set for short and one for long texts (`longrope`; Ding et al.
    /// 2024).
    LongRope {
        /// Divisors up to `original` positions.
        short: Vec<f64>,
        /// Divisors for longer texts.
        long: Vec<f64>,
        /// Positions in training (`original_max_position_embeddings`).
        original: f64,
        /// The factor on cosines and sines; computed by [`Scaling::long_rope_attention`] where a
        /// configuration does not give it (`attention_factor`).
        attention: f64,
    },
}

/// The settings of [`Scaling::Yarn`].
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer.
    pub factor: f64,
    /// Positions in training (`original_max_position_embeddings`).
    pub original: f64,
    /// Pairs that turn more often than this in training are kept (`beta_fast`, 32).
    pub beta_fast: f64,
    /// Pairs that turn less often than this are divided by the factor (`beta_slow`, 1).
    pub beta_slow: f64,
    /// The factor on cosines and sines, where the configuration gives it (`attention_factor`).
    pub attention: Option<f64>,
    /// `mscale` and `mscale_all_dim` of DeepSeek, where both are given.
    pub mscale: Option<(f64, f64)>,
    /// Whether the bounds between kept and divided pairs are rounded outwards (`truncate`, true).
    pub truncate: bool,
}

impl Yarn {
    /// The paper's settings.
    pub fn new(factor: f64, original: f64) -> Yarn {
        Yarn { factor, original, beta_fast: 32.0, beta_slow: 1.0, attention: None, mscale: None, truncate: true }
    }

    fn attention(&self) -> f64 {
        let warmth = |m: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * m * self.factor.ln() + 1.0 };
        match (self.attention, self.mscale) {
            (Some(a), _) => a,
            (None, Some((one, all))) => warmth(one) / warmth(all),
            (None, None) => warmth(1.0),
        }
    }

    /// How much pair `i` is divided, 0 to 1, for each pair.
    fn ramp(&self, theta: f64, half: usize) -> impl Fn(usize) -> f64 {
        let dim = 2.0 * half as f64;
        let pair_of = |turns: f64| dim * (self.original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let low = low.max(0.0);
        let mut high = high.min(dim - 1.0);
        if high == low {
            high += 0.001;
        }
        move |i| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }
}

impl Scaling {
    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Scaling::None => "default",
            Scaling::Linear { .. } => "linear",
            Scaling::Dynamic { .. } => "dynamic",
            Scaling::Llama3 { .. } => "llama3",
            Scaling::Yarn(_) => "yarn",
            Scaling::LongRope { .. } => "longrope",
        }
    }

    /// The attention factor of LongRoPE for a model of `positions` positions trained on
    /// `original`: `sqrt(1 + ln(positions / original) / ln(original))`.
    pub fn long_rope_attention(positions: f64, original: f64) -> f64 {
        let factor = positions / original;
        if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() }
    }

    /// Whether the frequencies depend on the length of the text.
    pub fn depends_on_length(&self) -> bool {
        matches!(self, Scaling::Dynamic { .. } | Scaling::LongRope { .. })
    }
}

impl Rotary {
    /// The number of pairs in a head of `features` features.
    pub fn half(&self, features: &Extent) -> Extent {
        let half = |n: u64| (n as f64 * self.partial) as u64 / 2;
        match features.as_constant() {
            Some(n) => Extent::constant(half(n)),
            None if self.partial == 1.0 => Extent::floor_div(features.clone(), Extent::constant(2)),
            None => {
                // The fraction with the smallest denominator that the decimal number means.
                let near = |d: &u64| (self.partial * *d as f64 - (self.partial * *d as f64).round()).abs() < 1e-9;
                let denominator = (1..=1000).find(near).unwrap_or(1 << 20);
                let numerator = (self.partial * denominator as f64).round() as u64;
                let part = Extent::mul(features.clone(), Extent::constant(numerator));
                Extent::floor_div(part, Extent::constant(2 * denominator))
            }
        }
    }

    /// Fills in the angle per position of each pair in radians, and gives the factor on cosines and
    /// sines, for a text whose last position is `length - 1`.
    ///
    /// # Errors
    /// LongRoPE divisors that are not one per pair.
    pub fn fill(&self, length: usize, out: &mut [f64]) -> Result<f64, String> {
        let half = out.len();
        let dim = 2.0 * half as f64;
        let plain = |theta: f64, i: usize| theta.powf(-2.0 * i as f64 / dim);
        let mut each = |f: &dyn Fn(usize) -> f64| out.iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
        match &self.scaling {
            Scaling::None => each(&|i| plain(self.theta, i)),
            Scaling::Linear { factor } => each(&|i| plain(self.theta, i) / factor),
            Scaling::Dynamic { factor, original } => {
                let length = (length as f64).max(*original);
                let theta = self.theta * (factor * length / original - (factor - 1.0)).powf(dim / (dim - 2.0));
                each(&|i| plain(theta, i));
            }
            Scaling::Llama3 { factor, low, high, original } => each(&|i| {
                let f = plain(self.theta, i);
                let turns = original * f / (2.0 * PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * f / factor + kept * f
            }),
            Scaling::Yarn(yarn) => {
                let ramp = yarn.ramp(self.theta, half);
                each(&|i| {
                    let f = plain(self.theta, i);
                    f / yarn.factor * ramp(i) + f * (1.0 - ramp(i))
                });
                return Ok(yarn.attention());
            }
            Scaling::LongRope { short, long, original, attention } => {
                let divisors = if length as f64 > *original { long } else { short };
                if divisors.len() != half {
                    return Err(format!("{} LongRoPE divisors for {half} pairs of features", divisors.len()));
                }
                each(&|i| plain(self.theta, i) / divisors[i]);
                return Ok(*attention);
            }
        }
        Ok(1.0)
    }

    /// [`fill`](Self::fill) for `half` pairs.
    ///
    /// # Errors
    /// As there.
    pub fn frequencies(&self, half: usize, length: usize) -> Result<(Vec<f64>, f64), String> {
        let mut out = vec![0.0; half];
        let factor = self.fill(length, &mut out)?;
        Ok((out, factor))
    }
}
