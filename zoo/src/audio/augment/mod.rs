//! What makes training harder than hearing: recordings and features changed at random.
//!
//! - [`Augmentor`] changes waveforms on the host, step by step, as NeMo's `augmentor` section says; offline or
//!   while a corpus is read. What happens to a recording is a function of the seed, the epoch and the
//!   recording's place, and of nothing else.
//! - [`SpecAugment`] and [`crop_or_pad`] change features in the graph.
//!
//! One thing differs from NeMo on purpose: its `speed` makes recordings slower where the rate is above 1;
//! here they become faster, as the name says.

mod config;
mod draw;
mod g711;
mod sounds;
mod spectra;
mod steps;
mod stretch;

pub use config::AugmentError;
pub use draw::Draw;
pub use g711::Law;
pub use sounds::Sounds;
pub(crate) use spectra::crop_or_pad_to;
pub use spectra::{SpecAugment, Width, crop_or_pad};
pub use steps::{Impulse, Noise, Rates, Step};

use super::AudioError;
use config::strict;

/// Steps that recordings go through, each with a probability.
#[derive(Clone, Debug)]
pub struct Augmentor {
    rate: u32,
    seed: u64,
    steps: Vec<(f64, Step)>,
}

impl Augmentor {
    /// Of steps with their probabilities, for recordings at a rate in hertz.
    pub fn new(rate: u32, seed: u64, steps: Vec<(f64, Step)>) -> Self {
        Self { rate, seed, steps }
    }

    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A recording as it is heard in an epoch; `index` is its place in the corpus.
    ///
    /// # Errors
    /// Recordings to be mixed in that cannot be read, a recording too short for what is asked.
    pub fn apply(&self, samples: Vec<f32>, epoch: u64, index: usize) -> Result<Vec<f32>, AudioError> {
        let mut samples = samples;
        for (i, (probability, step)) in self.steps.iter().enumerate() {
            let mut draw = Draw::new(self.seed, epoch, index as u64, i as u32);
            if draw.unit() < *probability {
                samples = step.apply(samples, self.rate, &mut draw)?;
            }
        }
        Ok(samples)
    }
}
