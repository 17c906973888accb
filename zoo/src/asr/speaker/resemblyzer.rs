//! Resemblyzer's speaker encoder: Wan et al. 2017, "Generalized end-to-end loss for speaker verification"
//! (<https://arxiv.org/abs/1710.10467>), as <https://github.com/resemble-ai/Resemblyzer>.
//!
//! A recording is cut into parts of 1.6 s that overlap by half; three LSTM layers read the mel energies of each; the
//! last state, a linear layer and ReLU make a vector of length 1. A recording's vector is the mean of its parts',
//! again of length 1. The package makes recordings louder and trims silence first; here they are heard as they are.

use super::super::voice::VoiceError;
use super::{Embedder, normalized};
use crate::audio::features::{Extractor, Features, Settings};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::nn::{Linear, Lstm};
use mobilis_runtime::prelude::*;
use std::cell::RefCell;

/// Frames of a part.
const FRAMES: usize = 160;
/// Frames from one part to the next: 1.3 parts a second.
const STEP: usize = 77;
/// Samples of a frame's step.
const HOP: usize = 160;
/// Parts that are heard together.
const TOGETHER: usize = 32;
/// Frames that a window of the spectrum reaches into.
const REACH: usize = 2;

axes! {
    /// Parts of a recording.
    pub Parts;
    /// Frames of a part.
    pub Within = 160;
    /// Energies of a frame.
    pub Bands = 40;
    /// What the LSTM remembers, and the vector's width.
    pub Voice = 256;
}

/// The network.
#[neural_module]
pub struct SpeakerLstm {
    /// Three layers.
    pub lstm: Lstm<Bands, Voice, 3>,
    /// `[Voice, Voice]`
    pub linear: Linear<Voice, Voice>,
}

#[neural_module]
impl SpeakerLstm {
    /// Mel energies of parts to vectors, not yet of length 1.
    pub fn forward(&self, mels: Tensor![Parts, Within, Bands]) -> Tensor![Parts, Voice] {
        let (steps, _) = self.lstm.forward(mels);
        let last = steps.slice(Within, Const::<1>, 159).reshape::<(Parts, Voice)>();
        self.linear.forward(last).relu()
    }
}

type Hear = Program<Tensor![Parts, Within, Bands], Tensor![Parts, Voice]>;

/// Resemblyzer's encoder.
pub struct Resemblyzer {
    model: Model<SpeakerLstm>,
    programs: RefCell<Option<(Extractor, Hear)>>,
}

impl Resemblyzer {
    /// The model with the tensors of a source.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn load(tensors: &dyn Source) -> Result<Resemblyzer, VoiceError> {
        // Scale and shift of the loss that it was trained with.
        let options = LoadOptions::new().passing_over("similarity_*");
        let model = options.load(SpeakerLstm::default(), tensors)?;
        Ok(Resemblyzer { model, programs: RefCell::new(None) })
    }

    /// The first frames of a recording's parts: the last is left out where less than three quarters of it are there.
    pub fn starts(samples: usize) -> Vec<usize> {
        let frames = (samples + 1).div_ceil(HOP);
        let end = (frames + STEP + 1).saturating_sub(FRAMES).max(1);
        let mut starts: Vec<usize> = (0..end).step_by(STEP).collect();
        if let [.., last] = starts[..]
            && starts.len() > 1
            && 4 * samples.saturating_sub(last * HOP) < 3 * FRAMES * HOP
        {
            starts.pop();
        }
        starts
    }

    /// The vectors of a recording's parts, each of length 1.
    ///
    /// # Errors
    /// A recording of less than a frame; a model that cannot be run.
    pub fn parts(&self, recording: &[f32]) -> Result<Vec<Vec<f32>>, VoiceError> {
        if recording.len() < HOP {
            return Err(VoiceError::Short { found: recording.len(), model: "Resemblyzer", least: HOP });
        }
        let mut programs = self.programs.borrow_mut();
        if programs.is_none() {
            let features = Features::spectral(Settings::librosa(16_000, 400, HOP, 40))?;
            let extractor = Extractor::new(features, self.model.device())?;
            *programs = Some((extractor, self.model.compile(|m, mels| m.forward(mels))?));
        }
        let Some((extractor, hear)) = &*programs else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for starts in Resemblyzer::starts(recording.len()).chunks(TOGETHER) {
            let (first, last) = (starts[0], starts[starts.len() - 1]);
            // With enough around that windows see what they would in the whole recording.
            let from = first.saturating_sub(REACH);
            let to = (last + FRAMES + REACH) * HOP;
            let mut sound = recording[(from * HOP).min(recording.len())..to.min(recording.len())].to_vec();
            sound.resize(to - from * HOP, 0.0);
            let found = extractor.run(&[&sound])?;
            let mels = found.of(0);
            let part = |start: &usize| {
                let begin = (start - from) * found.width;
                mels[begin..begin + FRAMES * found.width].iter().copied()
            };
            let data: Vec<f32> = starts.iter().flat_map(part).collect();
            let mels: Array![Parts, Within, Bands] = Array::from_parts(&[starts.len(), FRAMES, found.width], data);
            let said = hear.run(&mels)?;
            all.extend(said.data().chunks(256).map(|v| normalized(v.to_vec())));
        }
        Ok(all)
    }
}

impl Embedder for Resemblyzer {
    fn sample_rate(&self) -> u32 {
        16_000
    }

    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn embed(&self, recording: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let parts = self.parts(recording)?;
        let mut sum = vec![0f64; 256];
        for part in &parts {
            sum.iter_mut().zip(part).for_each(|(s, v)| *s += f64::from(*v));
        }
        let count = parts.len().max(1) as f64;
        Ok(normalized(sum.into_iter().map(|v| (v / count) as f32).collect()))
    }
}
