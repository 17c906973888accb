//! MarbleNet for frames of 20 ms: NeMo's `EncDecFrameClassificationModel`.
//!
//! Jia et al. 2021 (<https://arxiv.org/abs/2010.13886>). Features that are not normalised, blocks of separable
//! convolutions ([`super::super::conv`]), a linear layer for each frame: the last class is speech. A long recording is
//! heard in windows with enough sound on both sides that nothing changes at their seams.

use super::super::conv::{AnyConv, ConvAxes, ConvEncoder, ConvSettings, FrameClassifier, Steps};
use super::super::voice::VoiceError;
use super::{Detector, Listener};
use crate::audio::Batch;
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::import::nemo::Archive;
use crate::llm::config::Config;
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;

type A = AnyConv;
type Classes = <A as ConvAxes>::Classes;

/// Seconds of a window that count.
const WINDOW: usize = 30;
/// Seconds on both sides of it that are heard too.
const AROUND: usize = 4;

/// Features, encoder and head.
#[neural_module(no_default)]
pub struct MarbleNetwork {
    /// What the encoder sees.
    #[name("preprocessor.featurizer")]
    pub features: Features,
    /// The blocks.
    pub encoder: ConvEncoder<A>,
    /// What each frame is.
    pub decoder: FrameClassifier<A>,
}

#[neural_module]
impl MarbleNetwork {
    /// Samples to the probabilities of each frame's classes, `[Batch, Steps, Classes]`.
    pub fn forward(&self, sound: Sound, samples: SampleCounts) -> Tensor<(Batch, Steps, Classes), Probs> {
        let (x, lengths) = self.features.forward::<<A as ConvAxes>::Features>(sound, samples);
        let (x, _) = self.encoder.forward(Tensor::from_raw(x.raw()), lengths);
        self.decoder.forward(x).softmax(Classes::AXIS).assume()
    }
}

type Heard = Program<(Sound, SampleCounts), Tensor<(Batch, Steps, Classes), Probs>>;

/// A MarbleNet for frames.
pub struct MarbleNet {
    model: Model<MarbleNetwork>,
    stride: usize,
    program: OnceCell<Heard>,
}

impl MarbleNet {
    /// The model of an archive.
    ///
    /// # Errors
    /// Another kind of model; settings that make no sense, tensors that do not fit.
    pub fn open(archive: Archive) -> Result<MarbleNet, VoiceError> {
        let place = archive.path.display().to_string();
        let target = crate::import::nemo::target(&archive.config).unwrap_or("").to_string();
        if !target.ends_with("EncDecFrameClassificationModel") {
            let wanted = "voice activity detector for frames";
            return Err(VoiceError::Kind { place, wanted, found: format!("its `target` is `{target}`") });
        }
        let config = Config::new(place, archive.config);
        let part = |key: &str| config.inner(key).ok_or_else(|| config.missing(key));
        let features = Features::nemo(&part("preprocessor")?, Version::parse(config.word("nemo_version")?))?;
        let settings = ConvSettings::nemo(&part("encoder")?)?;
        let decoder = part("decoder")?;
        let layers = decoder.count("num_layers")?.unwrap_or(2);
        if !(1..=64).contains(&layers) {
            return Err(decoder.wrong("num_layers", "1 to 64").into());
        }
        let sizes = ConvEncoder::<A>::sizes(&settings)
            .with::<Classes>(decoder.size("num_classes")?)
            .with::<crate::audio::Hop>(features.hop());
        let stride = settings.stride() as usize;
        let network =
            MarbleNetwork { features, encoder: ConvEncoder::new(&settings), decoder: FrameClassifier::new(layers) };
        let options = LoadOptions::new().sizes(sizes).passing_over("preprocessor.**").passing_over("loss.**");
        let model = options.load(network, &*archive.tensors)?;
        Ok(MarbleNet { model, stride, program: OnceCell::new() })
    }

    fn program(&self) -> Result<&Heard, VoiceError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = self.model.compile(|m, (sound, samples)| m.forward(sound, samples))?.alike();
        Ok(self.program.get_or_init(|| program))
    }
}

impl Detector for MarbleNet {
    fn sample_rate(&self) -> u32 {
        self.model.features.sample_rate()
    }

    fn step(&self) -> usize {
        self.model.features.hop() * self.stride
    }

    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn listen(&self) -> Result<Box<dyn Listener + '_>, VoiceError> {
        let second = self.sample_rate() as usize / self.step();
        let (window, around) = (WINDOW * second, AROUND * second);
        Ok(Box::new(Hearing { net: self, program: self.program()?, window, around, sound: Vec::new(), before: 0 }))
    }
}

/// A recording that is heard window by window.
struct Hearing<'m> {
    net: &'m MarbleNet,
    program: &'m Heard,
    /// Steps of a window.
    window: usize,
    /// Steps on both sides of it.
    around: usize,
    /// What is not done, with what goes before it.
    sound: Vec<f32>,
    /// Steps at its beginning that are done.
    before: usize,
}

impl Hearing<'_> {
    /// The probabilities of steps of the sound that is here.
    fn run(&mut self, count: usize) -> Result<Vec<f32>, VoiceError> {
        let (sound, samples) = self.net.model.features.pack(&[&self.sound]);
        let said = self.program.run((sound, samples))?;
        let (steps, classes) = (said.sizes()[1], said.sizes()[2].max(1));
        let last = (self.before + count).min(steps);
        let of = |i: usize| said.data()[i * classes + classes - 1];
        Ok((self.before.min(last)..last).map(of).collect())
    }
}

impl Listener for Hearing<'_> {
    fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let step = self.net.step();
        let mut all = Vec::new();
        for part in samples.chunks(self.window * step) {
            self.sound.extend_from_slice(part);
            while self.sound.len() >= (self.before + self.window + self.around) * step {
                all.extend(self.run(self.window)?);
                let done = self.before + self.window;
                let keep = done - self.around.min(done);
                self.sound.drain(..keep * step);
                self.before = done - keep;
            }
        }
        Ok(all)
    }

    fn finish(&mut self) -> Result<Vec<f32>, VoiceError> {
        let left = self.sound.len().div_ceil(self.net.step()).saturating_sub(self.before);
        let all = if left == 0 { Vec::new() } else { self.run(left)? };
        self.sound.clear();
        self.before = 0;
        Ok(all)
    }
}
