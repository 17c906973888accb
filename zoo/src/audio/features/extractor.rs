//! Features alone: recordings in, frames out.

use super::{FeatureError, Features, SampleCounts, Sound};
use crate::audio::{Batch, Frames, Mels};
use mobilis_runtime::prelude::*;

type Given = (Tensor<(Batch, Frames, Mels), MelSpectrogram>, Tensor<(Batch,), Lengths<Frames>>);

/// Computes features without a model.
pub struct Extractor {
    model: Model<Features>,
    program: Program<(Sound, SampleCounts), Given>,
}

/// Features of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// Frames of each recording, counted or not.
    pub frames: usize,
    /// Features of a frame.
    pub width: usize,
    /// `[recordings, frames, width]`, row-major.
    pub values: Vec<f32>,
    /// How many frames of each recording count.
    pub counted: Vec<usize>,
}

impl Extracted {
    /// The frames of one recording that count, `[frames, width]`.
    pub fn of(&self, recording: usize) -> &[f32] {
        let start = recording * self.frames * self.width;
        &self.values[start..start + self.counted[recording].min(self.frames) * self.width]
    }
}

impl Extractor {
    /// Compiles the features for a device.
    ///
    /// # Errors
    /// A device that there is not.
    pub fn new(features: Features, device: Device) -> Result<Self, FeatureError> {
        let sizes = Sizes::new().with::<Mels>(features.width()).with::<crate::audio::Hop>(features.hop());
        let model = Model::init_with(features, 0, sizes)?;
        model.store().set_device(device);
        let program = model.compile(|f, (sound, samples): (Sound, SampleCounts)| f.forward::<Mels>(sound, samples))?;
        Ok(Self { model, program })
    }

    /// What is computed.
    pub fn features(&self) -> &Features {
        self.model.module()
    }

    /// Features of recordings at [`Features::sample_rate`].
    ///
    /// # Errors
    /// What the device reports.
    pub fn run(&self, recordings: &[&[f32]]) -> Result<Extracted, FeatureError> {
        let (sound, counts) = self.features().pack(recordings);
        let (values, counted) = self.program.run((sound, counts))?;
        Ok(Extracted {
            frames: values.sizes()[1],
            width: self.features().width(),
            values: values.into_vec(),
            counted: counted.into_vec().into_iter().map(|n| n.max(0) as usize).collect(),
        })
    }
}
