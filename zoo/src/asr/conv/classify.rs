//! What a whole recording is: NeMo's `EncDecClassificationModel` (MatchboxNet and spoken commands).
//!
//! Features, a crop or padding to one length, encoder and classifier are one graph, from samples to logits. The
//! label is a transcript of one word, which lasts as long as the recording.

use super::super::front::Front;
use super::super::voice::VoiceError;
use super::super::{Recognizer, Segment, Transcript};
use super::{AnyConv, Classifier, ConvAxes, ConvEncoder, ConvSettings, Counts, FeaturesOf};
use crate::audio::features::{SampleCounts, Sound};
use crate::audio::{Batch, Frames, Hop};
use crate::import::nemo::{Archive, target};
use crate::llm::config::Config;
use mobilis_runtime::prelude::*;
use serde_json::Value;
use std::time::Duration;

type A = AnyConv;
type Classes = <A as ConvAxes>::Classes;

/// Encoder and head.
#[neural_module(no_default)]
pub struct ConvClassifier {
    /// The blocks.
    pub encoder: ConvEncoder<A>,
    /// The head.
    pub decoder: Classifier<A>,
}

/// The labels of a configuration.
fn labels(config: &Config) -> Result<Vec<String>, VoiceError> {
    let decoder = config.inner("decoder");
    let of_decoder = decoder.as_ref().map(|d| d.words("vocabulary")).transpose()?.flatten();
    match config.words("labels")?.or(of_decoder) {
        Some(labels) if !labels.is_empty() => Ok(labels.into_iter().map(str::to_string).collect()),
        _ => Err(config.missing("labels").into()),
    }
}

impl ConvClassifier {
    /// Whether a configuration of NeMo's describes such a model.
    pub fn is_one(config: &Value) -> bool {
        let name = target(config).unwrap_or("").rsplit('.').next().unwrap_or("");
        name == "EncDecClassificationModel" && config["encoder"]["jasper"].is_array()
    }

    /// The model that a configuration of NeMo's describes for so many features, and the sizes of its axes.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn of(config: &Config, front: &Front) -> Result<(ConvClassifier, Sizes), VoiceError> {
        let encoder = config.inner("encoder").ok_or_else(|| config.missing("encoder"))?;
        let settings = ConvSettings::nemo(&encoder)?;
        if front.width() as u64 != settings.features {
            return Err(encoder.wrong("feat_in", format!("as many as features, {}", front.width())).into());
        }
        let sizes = ConvEncoder::<A>::sizes(&settings);
        let sizes = sizes.with::<Classes>(labels(config)?.len()).with::<Hop>(front.features().hop());
        Ok((ConvClassifier { encoder: ConvEncoder::new(&settings), decoder: Classifier::default() }, sizes))
    }
}

#[neural_module]
impl ConvClassifier {
    /// Features and how many frames count, to logits.
    pub fn forward(&self, x: FeaturesOf<A>, counted: Counts<Frames>) -> Tensor<(Batch, Classes), Logits> {
        let (stream, steps) = self.encoder.forward(x, counted);
        self.decoder.forward(stream, steps)
    }
}

type Guess = Program<(Sound, SampleCounts), Tensor<(Batch,), Index>>;

/// A model with its labels.
pub struct ClassRecognizer {
    model: Model<ConvClassifier>,
    front: Front,
    labels: Vec<String>,
    guess: Guess,
}

impl ClassRecognizer {
    /// The model of an archive, on a device.
    ///
    /// # Errors
    /// Another kind of model; settings that make no sense, tensors that do not fit.
    pub fn open(archive: &Archive, device: Device) -> Result<ClassRecognizer, VoiceError> {
        let place = archive.path.display().to_string();
        if !ConvClassifier::is_one(&archive.config) {
            let found = format!("its `target` is `{}`", target(&archive.config).unwrap_or("none"));
            return Err(VoiceError::Kind { place, wanted: "convolutional model of classes", found });
        }
        let config = Config::new(place, archive.config.clone());
        let front = Front::nemo(&archive.config)?;
        let (module, sizes) = ConvClassifier::of(&config, &front)?;
        // Features are computed, not loaded.
        let options = LoadOptions::new().sizes(sizes).passing_over("preprocessor.**").passing_over("loss.**");
        let model = options.load(module, &*archive.tensors)?;
        model.store().set_device(device);
        let guess = model.compile(|m, (sound, samples): (Sound, SampleCounts)| {
            let (x, counted) = front.trace(sound, samples);
            m.forward(x, counted).argmax(Classes::AXIS)
        })?;
        Ok(ClassRecognizer { labels: labels(&config)?, model, front, guess })
    }

    /// The model.
    pub fn model(&self) -> &Model<ConvClassifier> {
        &self.model
    }
}

impl Recognizer for ClassRecognizer {
    type Error = VoiceError;

    fn sample_rate(&self) -> u32 {
        self.front.features().sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, VoiceError> {
        if recordings.is_empty() {
            return Ok(vec![]);
        }
        let (sound, samples) = self.front.features().pack(recordings);
        let found = self.guess.run((sound, samples))?;
        let rate = f64::from(self.sample_rate());
        let transcript = |(guess, recording): (&i32, &&[f32])| {
            let duration = Duration::from_secs_f64(recording.len() as f64 / rate);
            let id = u32::try_from(*guess).unwrap_or(u32::MAX);
            let text = self.labels.get(id as usize).cloned().unwrap_or_default();
            let (start, end) = (Duration::ZERO, duration);
            let segment = Segment { start, end, text: text.clone(), tokens: vec![id], words: vec![], confidence: None };
            Transcript { text, language: None, duration, segments: vec![segment] }
        };
        Ok(found.data().iter().zip(recordings).map(transcript).collect())
    }
}
