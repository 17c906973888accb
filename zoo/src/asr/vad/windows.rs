//! MarbleNet for windows: NeMo's `EncDecClassificationModel` with the labels `background` and `speech`.
//!
//! The published MarbleNet (Jia et al. 2021) tells of 0.63 s of sound whether somebody speaks. For where, it is asked
//! of a window around every hundredth of a second, with silence before a recording's beginning and behind its end
//! (`vad_utils.py`, `generate_vad_frame_pred`; `_vad_frame_seq_collate_fn`). Windows share nothing, so a recording is
//! heard in parts of any size; [`smoothed`](super::smooth::smoothed) makes of what overlapping windows say one value.

use super::super::conv::{AnyConv, Classifier, ConvAxes, ConvEncoder, ConvSettings};
use super::super::voice::VoiceError;
use super::{Detector, Listener};
use crate::audio::Batch;
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::import::nemo::{Archive, target};
use crate::llm::config::Config;
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;

type A = AnyConv;
type Classes = <A as ConvAxes>::Classes;

/// Seconds of a window, and from one to the next.
const WINDOW: [f64; 2] = [0.63, 0.01];
/// Windows that are heard at once.
const BATCH: usize = 128;

/// Features, encoder and head.
#[neural_module(no_default)]
pub struct WindowNetwork {
    /// What the encoder sees.
    #[name("preprocessor.featurizer")]
    pub features: Features,
    /// The blocks.
    pub encoder: ConvEncoder<A>,
    /// What a window is.
    pub decoder: Classifier<A>,
}

#[neural_module]
impl WindowNetwork {
    /// Samples of windows to the probabilities of their classes, `[Batch, Classes]`.
    pub fn forward(&self, sound: Sound, samples: SampleCounts) -> Tensor<(Batch, Classes), Probs> {
        let (x, lengths) = self.features.forward::<<A as ConvAxes>::Features>(sound, samples);
        let (x, _) = self.encoder.forward(Tensor::from_raw(x.raw()), lengths);
        self.decoder.whole(x).softmax(Classes::AXIS).assume()
    }
}

type Heard = Program<(Sound, SampleCounts), Tensor<(Batch, Classes), Probs>>;

/// A MarbleNet for windows.
pub struct WindowedMarbleNet {
    model: Model<WindowNetwork>,
    /// Samples of a window.
    window: usize,
    /// Samples from one window to the next.
    step: usize,
    program: OnceCell<Heard>,
}

impl WindowedMarbleNet {
    /// Whether a configuration of NeMo's describes such a model: two labels, of which the second is speech.
    pub fn is_one(config: &serde_json::Value) -> bool {
        let labels = config["labels"].as_array().or(config["decoder"]["vocabulary"].as_array());
        target(config).is_some_and(|t| t.ends_with("EncDecClassificationModel"))
            && labels.is_some_and(|l| l.len() == 2 && l[1] == "speech")
    }

    /// The model of an archive.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn open(archive: Archive) -> Result<WindowedMarbleNet, VoiceError> {
        let config = Config::new(archive.path.display().to_string(), archive.config);
        let part = |key: &str| config.inner(key).ok_or_else(|| config.missing(key));
        let features = Features::nemo(&part("preprocessor")?, Version::parse(config.word("nemo_version")?))?;
        let settings = ConvSettings::nemo(&part("encoder")?)?;
        let rate = f64::from(features.sample_rate());
        let [window, step] = WINDOW.map(|seconds| ((seconds * rate).round() as usize).max(1));
        let sizes = ConvEncoder::<A>::sizes(&settings)
            .with::<Classes>(part("decoder")?.size("num_classes")?)
            .with::<crate::audio::Hop>(features.hop());
        let network = WindowNetwork { features, encoder: ConvEncoder::new(&settings), decoder: Classifier::default() };
        let options = LoadOptions::new().sizes(sizes).passing_over("preprocessor.**").passing_over("loss.**");
        let model = options.load(network, &*archive.tensors)?;
        Ok(WindowedMarbleNet { model, window, step, program: OnceCell::new() })
    }

    fn program(&self) -> Result<&Heard, VoiceError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = self.model.compile(|m, (sound, samples)| m.forward(sound, samples))?.alike();
        Ok(self.program.get_or_init(|| program))
    }

    /// The probabilities of windows that begin at a multiple of the step, the first `count` of a sound.
    fn run(&self, sound: &[f32], window: usize, count: usize) -> Result<Vec<f32>, VoiceError> {
        let mut all = Vec::with_capacity(count);
        for first in (0..count).step_by(BATCH) {
            let windows = first..(first + BATCH).min(count);
            let parts: Vec<&[f32]> = windows.map(|i| &sound[i * self.step..i * self.step + window]).collect();
            let (sound, samples) = self.model.features.pack(&parts);
            let said = self.program()?.run((sound, samples))?;
            all.extend(said.data().chunks(said.sizes()[1].max(1)).map(|classes| classes[classes.len() - 1]));
        }
        Ok(all)
    }
}

impl Detector for WindowedMarbleNet {
    fn sample_rate(&self) -> u32 {
        self.model.features.sample_rate()
    }

    fn step(&self) -> usize {
        self.step
    }

    fn window(&self) -> usize {
        self.window
    }

    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn listen(&self) -> Result<Box<dyn Listener + '_>, VoiceError> {
        Ok(Box::new(Hearing { net: self, sound: vec![0.0; self.window / 2], heard: 0, given: 0 }))
    }
}

/// A recording that is being heard.
struct Hearing<'m> {
    net: &'m WindowedMarbleNet,
    /// What windows to come begin with; half a window of silence before the recording.
    sound: Vec<f32>,
    /// Samples of the recording.
    heard: usize,
    /// Windows that were told.
    given: usize,
}

impl Hearing<'_> {
    fn go_on(&mut self, window: usize, most: usize) -> Result<Vec<f32>, VoiceError> {
        let step = self.net.step;
        let ready = self.sound.len().checked_sub(window).map_or(0, |n| n / step + 1).min(most);
        let all = self.net.run(&self.sound, window, ready)?;
        self.sound.drain(..ready * step);
        self.given += ready;
        Ok(all)
    }
}

impl Listener for Hearing<'_> {
    fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let mut all = Vec::new();
        for part in samples.chunks(BATCH * self.net.step) {
            self.sound.extend_from_slice(part);
            self.heard += part.len();
            // A window is there for each step of the recording: the last ones see silence.
            let most = self.heard / self.net.step - self.given;
            all.extend(self.go_on(self.net.window, most)?);
        }
        Ok(all)
    }

    fn finish(&mut self) -> Result<Vec<f32>, VoiceError> {
        let (step, whole) = (self.net.step, self.net.window);
        // A recording that is shorter than a window has windows of its own length.
        let window = if self.given == 0 { whole.min(self.heard) } else { whole };
        if window == 0 {
            return Ok(vec![]);
        }
        let mut all = Vec::new();
        if window < whole {
            self.sound.drain(..whole / 2 - window / 2);
        }
        self.sound.extend(std::iter::repeat_n(0.0, window - window / 2));
        let most = (self.heard / step).saturating_sub(self.given);
        all.extend(self.go_on(window, most)?);
        *self = Hearing { net: self.net, sound: vec![0.0; whole / 2], heard: 0, given: 0 };
        Ok(all)
    }
}
