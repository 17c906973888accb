//! Recognizers of convolution and CTC: NeMo's `EncDecCTCModel` and `EncDecCTCModelBPE` with Jasper, QuartzNet or
//! Citrinet.
//!
//! Features, encoder and head are one graph, from samples to logarithms of probabilities. A recording of more than
//! eighty seconds is heard in windows (`asr::windows`), a shorter one as a whole; several share a batch, and
//! nobody's transcript depends on who else is there.

use super::super::decode::search::CtcSearch;
use super::super::decode::{Labels, Search, Searcher, Timeless, Times};
use super::super::voice::VoiceError;
use super::super::windows::{self, Cut, Part, Rows, Windowed, Windows};
use super::super::{Blocks, Recognizer, Tell, Transcript};
use super::{AnyConv, ConvAxes, ConvEncoder, ConvSettings, Counts, CtcHead, FeaturesOf, Steps, Stream};
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::audio::{Batch, Frames};
use crate::import::nemo::{Archive, target};
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;
use std::time::Duration;

type A = AnyConv;

/// Logarithms of probabilities, `[Batch, Steps, Classes]`.
pub type LogProbsOf<A> = Tensor<(Batch, Steps, <A as ConvAxes>::Classes), LogProbs>;

/// Features, encoder and head.
#[neural_module(no_default)]
pub struct ConvCtc {
    /// What the encoder sees.
    #[name("preprocessor.featurizer")]
    pub features: Features,
    /// The blocks.
    pub encoder: ConvEncoder<A>,
    /// The head.
    pub decoder: CtcHead<A>,
}

impl ConvCtc {
    /// The model that a configuration of NeMo's describes, and the sizes of its axes.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn of(config: &Config) -> Result<(ConvCtc, ConvSettings, Sizes), VoiceError> {
        let part = |key: &str| config.inner(key).ok_or_else(|| config.missing(key));
        let features = Features::nemo(&part("preprocessor")?, Version::parse(config.word("nemo_version")?))?;
        let settings = ConvSettings::nemo(&part("encoder")?)?;
        let decoder = part("decoder")?;
        let classes = tokens(&decoder)?;
        if features.width() as u64 != settings.features {
            return Err(config.wrong("encoder.feat_in", format!("as many as features, {}", features.width())).into());
        }
        let sizes = ConvEncoder::<A>::sizes(&settings)
            .with::<<A as ConvAxes>::Classes>(classes + 1)
            .with::<crate::audio::Hop>(features.hop());
        let module = ConvCtc { features, encoder: ConvEncoder::new(&settings), decoder: CtcHead::default() };
        Ok((module, settings, sizes))
    }

    /// Whether a configuration of NeMo's describes such a model.
    pub fn is_one(config: &serde_json::Value) -> bool {
        let encoder = config["encoder"]["_target_"].as_str().or(config["encoder"]["cls"].as_str()).unwrap_or("");
        let name = target(config).unwrap_or("").rsplit('.').next().unwrap_or("");
        matches!(name, "EncDecCTCModel" | "EncDecCTCModelBPE") && encoder.ends_with("ConvASREncoder")
    }

    /// The model of a configuration, with the tensors of a source.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(config: &Config, tensors: &dyn Source) -> Result<(Model<ConvCtc>, ConvSettings), VoiceError> {
        let (module, settings, sizes) = ConvCtc::of(config)?;
        // The window and the filters of its features, which follow from the settings.
        let options = LoadOptions::new().sizes(sizes).passing_over("preprocessor.**").passing_over("loss.**");
        Ok((options.load(module, tensors)?, settings))
    }

    /// From features on: `[Batch, Frames, Features]` to the stream, the logarithms of probabilities, and how many steps
    /// count.
    pub fn hear(&self, x: FeaturesOf<A>, lengths: Counts<Frames>) -> (Stream<A>, LogProbsOf<A>, Counts<Steps>) {
        let (x, lengths) = self.encoder.forward(x, lengths);
        (x, self.decoder.forward(x), lengths)
    }
}

#[neural_module]
impl ConvCtc {
    /// Samples to logarithms of probabilities, and how many steps count.
    pub fn forward(&self, sound: Sound, samples: SampleCounts) -> (LogProbsOf<A>, Counts<Steps>) {
        let (x, lengths) = self.features.forward::<<A as ConvAxes>::Features>(sound, samples);
        let (_, log_probs, lengths) = self.hear(Tensor::from_raw(x.raw()), lengths);
        (log_probs, lengths)
    }
}

/// How many tokens a head tells apart, besides the blank.
fn tokens(decoder: &Config) -> Result<usize, ConfigError> {
    match decoder.get("num_classes").and_then(serde_json::Value::as_i64) {
        Some(n) if n >= 0 => decoder.size("num_classes"),
        // As many as are listed.
        _ => Ok(decoder.words("vocabulary")?.ok_or_else(|| decoder.missing("vocabulary"))?.len()),
    }
}

type Hear = Program<(Sound, SampleCounts), (LogProbsOf<A>, Counts<Steps>)>;

/// A model with its tokens.
pub struct ConvRecognizer {
    model: Model<ConvCtc>,
    labels: Labels,
    times: Times,
    searcher: Searcher,
    /// Samples of a step.
    step: usize,
    blank: usize,
    windows: Windows,
    weights: Weights,
    program: OnceCell<Hear>,
}

impl ConvRecognizer {
    /// The model of an archive.
    ///
    /// # Errors
    /// Another kind of model; settings that make no sense, tensors that do not fit.
    pub fn open(archive: Archive) -> Result<ConvRecognizer, VoiceError> {
        let place = archive.path.display().to_string();
        if !ConvCtc::is_one(&archive.config) {
            let found = format!("its `target` is `{}`", target(&archive.config).unwrap_or("none"));
            return Err(VoiceError::Kind { place, wanted: "convolutional CTC model", found });
        }
        let config = Config::new(place, archive.config);
        let (model, settings) = ConvCtc::load(&config, &*archive.tensors)?;
        let decoder = config.inner("decoder").ok_or_else(|| config.missing("decoder"))?;
        let words = match decoder.words("vocabulary")? {
            Some(words) => words,
            None => config.words("labels")?.ok_or_else(|| decoder.missing("vocabulary"))?,
        };
        // Tokens of a tokenizer are pieces of words; letters come without one.
        let kind =
            config.inner("tokenizer").map(|t| Ok::<_, ConfigError>(t.word("type")?.unwrap_or("bpe").to_string()));
        let labels = Labels::nemo(&words, kind.transpose()?.as_deref());
        let step = model.features.hop().saturating_mul(settings.stride() as usize);
        let frame = Duration::from_secs_f64(step as f64 / f64::from(model.features.sample_rate()));
        let (times, searcher, program) =
            (Times { timeless: Timeless::Beginning, ..Times::new(frame) }, Searcher::default(), OnceCell::new());
        // The last class is blank.
        let blank = tokens(&decoder)?;
        let (windows, weights) = (Windows::seconds(60, 10), Weights::default());
        Ok(ConvRecognizer { model, labels, times, searcher, step, blank, windows, weights, program })
    }

    /// The model.
    pub fn model(&self) -> &Model<ConvCtc> {
        &self.model
    }

    /// The same with another search.
    ///
    /// # Errors
    /// A search that makes no sense.
    pub fn searching(mut self, search: &Search) -> Result<ConvRecognizer, VoiceError> {
        self.searcher = Searcher::new(search, &self.labels)?;
        self.times.confidence = search.confidence.map(|c| c.aggregate);
        Ok(self)
    }

    /// The same in other windows.
    #[must_use]
    pub fn in_windows(mut self, windows: Windows) -> ConvRecognizer {
        self.windows = windows;
        self
    }

    /// How it cuts long recordings.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// The same with another storage of the weights that products read.
    #[must_use]
    pub fn storing(mut self, weights: Weights) -> ConvRecognizer {
        (self.weights, self.program) = (weights, OnceCell::new());
        self
    }

    /// Runs on another device from now on.
    pub fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn program(&self) -> Result<&Hear, VoiceError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = self.model.compile(|m, (sound, samples)| m.forward(sound, samples))?;
        let program = program.with_weights(self.weights.clone())?.alike();
        Ok(self.program.get_or_init(|| program))
    }
}

impl Windowed for ConvRecognizer {
    type Error = VoiceError;
    type Search<'r> = CtcSearch<'r>;

    fn cut(&self) -> Cut {
        Cut::new(&self.windows, self.sample_rate(), self.step, true)
    }

    fn rate(&self) -> u32 {
        self.sample_rate()
    }

    fn search(&self) -> Result<CtcSearch<'_>, VoiceError> {
        Ok(self.searcher.ctc(self.blank)?)
    }

    fn hear(&self, windows: &[&[f32]]) -> Result<Vec<Rows>, VoiceError> {
        let features = &self.model.features;
        let longest = windows.iter().map(|w| w.len()).max().unwrap_or(0).next_multiple_of(self.step);
        let frames = features.room(longest);
        let (log_probs, counted) = self.program()?.run(features.pack_to(windows, frames))?;
        Ok(Rows::of(log_probs.sizes(), log_probs.data(), counted.data()))
    }

    fn go_on<'r>(&'r self, parts: Vec<Part<'_, CtcSearch<'r>>>) -> Vec<Result<(), VoiceError>> {
        parts.into_iter().map(|part| Ok(part.ctc()?)).collect()
    }

    fn transcript(&self, search: &CtcSearch<'_>, samples: usize) -> Transcript {
        let duration = Duration::from_secs_f64(samples as f64 / f64::from(self.sample_rate()));
        self.times.transcript(&search.found(), &self.labels, duration)
    }
}

impl Recognizer for ConvRecognizer {
    type Error = VoiceError;

    fn sample_rate(&self) -> u32 {
        self.model.features.sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, VoiceError> {
        windows::transcribe(self, recordings, self.windows.beside)
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, VoiceError>> {
        windows::listen(self, recordings, self.windows.beside, tell)
    }
}
