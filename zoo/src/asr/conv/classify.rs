//! What a whole recording is: NeMo's `EncDecClassificationModel` (MatchboxNet and spoken commands).
//!
//! Features, a crop or padding to one length, encoder and classifier are one graph, from samples to logits. The
//! label is a transcript of one word, which lasts as long as the recording. A recording that is longer than a window
//! ([`Windows::core`]) is many things one after another: each window has a label of its own, and neighbours with the
//! same are one segment, so that no more of a recording is held than a window.

use super::super::front::Front;
use super::super::voice::VoiceError;
use super::super::{Blocks, Recognizer, Segment, Tell, Transcript, Windows};
use super::{AnyConv, Classifier, ConvAxes, ConvEncoder, ConvSettings, Counts, FeaturesOf};
use crate::audio::features::{SampleCounts, Sound};
use crate::audio::{AudioError, Batch, Frames, Hop};
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
    windows: Windows,
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
        let windows = Windows::seconds(60, 0);
        Ok(ClassRecognizer { labels: labels(&config)?, model, front, guess: guess.alike(), windows })
    }

    /// The same with other windows; their margins are not heard.
    #[must_use]
    pub fn in_windows(self, windows: Windows) -> ClassRecognizer {
        ClassRecognizer { windows, ..self }
    }

    /// How it hears what is long; at first in windows of a minute.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// Samples of a window.
    fn window(&self) -> usize {
        ((self.windows.core.as_secs_f64() * f64::from(self.sample_rate())).min(1e15) as usize).max(1)
    }

    /// The labels of windows.
    fn guess(&self, windows: &[&[f32]]) -> Result<Vec<u32>, VoiceError> {
        let mut all = Vec::with_capacity(windows.len());
        for some in windows.chunks(self.windows.beside.max(1)) {
            let (sound, samples) = self.front.features().pack(some);
            let found = self.guess.run((sound, samples))?;
            all.extend(found.data().iter().map(|id| u32::try_from(*id).unwrap_or(u32::MAX)));
        }
        Ok(all)
    }

    /// Adds a window's label to a transcript, which it makes so many samples longer.
    fn append(&self, id: u32, samples: usize, to: &mut Transcript) {
        let start = to.duration;
        to.duration += Duration::from_secs_f64(samples as f64 / f64::from(self.sample_rate()));
        let end = to.duration;
        if let Some(last) = to.segments.last_mut().filter(|last| last.tokens == [id]) {
            last.end = end;
            return;
        }
        let text = self.labels.get(id as usize).cloned().unwrap_or_default();
        if !to.segments.is_empty() {
            to.text.push(' ');
        }
        to.text.push_str(&text);
        to.segments.push(Segment { start, end, text, tokens: vec![id], words: vec![], confidence: None });
    }

    /// A recording that comes in blocks.
    fn one(&self, blocks: Blocks<'_>, tell: &mut dyn FnMut(&Transcript)) -> Result<Transcript, VoiceError> {
        let (window, mut samples, mut found) = (self.window(), Vec::new(), Transcript::default());
        let mut heard = |part: &[f32]| -> Result<(), VoiceError> {
            self.append(self.guess(&[part])?[0], part.len(), &mut found);
            tell(&found);
            Ok(())
        };
        for block in blocks {
            samples.extend_from_slice(&block?);
            let whole = samples.len() / window * window;
            samples[..whole].chunks_exact(window).try_for_each(&mut heard)?;
            samples.drain(..whole);
        }
        if !samples.is_empty() || found.segments.is_empty() {
            self.append(self.guess(&[&samples])?[0], samples.len(), &mut found);
            tell(&found);
        }
        Ok(found)
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
        // A recording without a sound is a window too.
        let parts = |samples: &[f32]| samples.len().div_ceil(self.window()).max(1);
        let windows = recordings.iter().flat_map(|samples| {
            let part = |i: usize| &samples[i * self.window()..samples.len().min((i + 1) * self.window())];
            (0..parts(samples)).map(part)
        });
        let windows: Vec<&[f32]> = windows.collect();
        let labels = self.guess(&windows)?;
        let mut each = windows.iter().zip(labels);
        let transcript = |samples: &&[f32]| {
            let mut found = Transcript::default();
            each.by_ref().take(parts(samples)).for_each(|(part, id)| self.append(id, part.len(), &mut found));
            found
        };
        Ok(recordings.iter().map(transcript).collect())
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, VoiceError>>
    where
        VoiceError: From<AudioError>,
    {
        let each = recordings.into_iter().enumerate();
        each.map(|(index, blocks)| {
            self.one(blocks, &mut |found| tell(index, found.duration, &found.segments[found.segments.len() - 1..]))
        })
        .collect()
    }
}
