//! A model with its features and its tokens: recordings to transcripts, whole or while they come in.
//!
//! Features, encoder and head are one graph, from samples to what the search reads. Attention over a whole recording
//! costs the square of its length, so what is longer than forty seconds is heard in windows
//! (`asr::windows`); models for streams hear it as a stream. Memory is that of a window, however long the
//! recording is. Several recordings share a batch, and searches with transducers ask the network together; each
//! transcript is the same in any company.

use super::listening::Growing;
use super::model::HeadSettings;
use super::network::Network;
use super::settings::Context;
use super::streaming::StreamError;
use crate::asr::decode::search::{self, CtcSearch, TransducerSearch};
use crate::asr::decode::{
    DecodeError, Emissions, Encoded, Hypothesis, Labels, Search, Searcher, Timeless, Times, Transducer,
};
use crate::asr::live::{LiveOptions, Stretches};
use crate::asr::windows::{self, Cut, Flowing, Part, Rows, Windowed, Windows};
use crate::asr::{Blocks, LiveOf, Recognizer, Tell, Transcript};
use crate::audio::AudioError;
use crate::audio::features::{self, Extractor, FeatureError, Version};
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::OpenError;
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use std::time::Duration;

/// Why a recording is not recognized.
#[derive(Debug, thiserror::Error)]
pub enum RecognizeError {
    /// A recording that cannot be read.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A model that cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Features that cannot be had.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A search that failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A model that hears no streams.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Features that depend on the whole recording.
    #[error("the features of this model are normalized over a whole recording, which a stream does not know")]
    Normalized,
}

impl From<ConfigError> for RecognizeError {
    fn from(error: ConfigError) -> Self {
        RecognizeError::Open(error.into())
    }
}

/// A model with its features and its tokens.
pub struct ConformerRecognizer {
    pub(super) network: Network,
    pub(super) extractor: Extractor,
    labels: Labels,
    pub(super) times: Times,
    pub(super) searcher: Searcher,
    pub(super) context: Option<Context>,
    windows: Windows,
}

/// Where the search in a recording stands.
pub(crate) enum Stand<'r> {
    Ctc(CtcSearch<'r>),
    Transducer(Box<TransducerSearch<'r, <Network as Transducer>::State>>),
}

impl Stand<'_> {
    fn found(&self) -> Hypothesis {
        match self {
            Stand::Ctc(search) => search.found(),
            Stand::Transducer(search) => search.found(),
        }
    }
}

impl ConformerRecognizer {
    /// A model of NeMo's: the configuration of its archive, and its tensors.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn nemo(config: &Config, tensors: &dyn Source) -> Result<Self, RecognizeError> {
        let preprocessor = config.inner("preprocessor").ok_or_else(|| config.missing("preprocessor"))?;
        let version = Version::parse(config.word("nemo_version")?);
        let features = features::Features::nemo(&preprocessor, version)?;
        let part = |key: &str| config.inner(key).filter(|part| part.get("vocabulary").is_some());
        let holder = part("joint").or_else(|| part("decoder")).unwrap_or_else(|| config.clone());
        let words = match holder.words("vocabulary")? {
            Some(words) => words,
            None => config.words("labels")?.ok_or_else(|| config.missing("labels"))?,
        };
        // Tokens of a tokenizer are pieces of words; letters come without one.
        let kind =
            config.inner("tokenizer").map(|t| Ok::<_, ConfigError>(t.word("type")?.unwrap_or("bpe").to_string()));
        let labels = Labels::nemo(&words, kind.transpose()?.as_deref());
        Self::new(Network::load(config, tensors)?, features, labels)
    }

    /// A model, its features, and its tokens.
    ///
    /// # Errors
    /// Features of another width than the model's.
    pub fn new(network: Network, features: features::Features, labels: Labels) -> Result<Self, RecognizeError> {
        let seconds = features.hop() as f64 / f64::from(features.sample_rate());
        let frame = Duration::from_secs_f64(seconds * network.settings.encoder.rate() as f64);
        let extractor = Extractor::new(features, Device::Cpu)?;
        let timeless = match &network.settings.head {
            HeadSettings::Transducer { durations, .. } if durations.is_empty() => Timeless::Nothing,
            HeadSettings::Transducer { .. } => Timeless::Alone,
            HeadSettings::Ctc | HeadSettings::Bare => Timeless::Beginning,
        };
        let times = Times { timeless, ..Times::new(frame) };
        let searcher = Searcher::default();
        let windows = Windows::seconds(30, 5);
        Ok(ConformerRecognizer { network, extractor, labels, times, searcher, context: None, windows })
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The same with what frames see: one of [`Network::contexts`], or another for models that take any.
    #[must_use]
    pub fn seeing(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// The same with another storage of the weights that products read.
    #[must_use]
    pub fn storing(self, weights: Weights) -> Self {
        ConformerRecognizer { network: self.network.storing(weights), ..self }
    }

    /// The same in other windows.
    #[must_use]
    pub fn in_windows(mut self, windows: Windows) -> Self {
        self.windows = windows;
        self
    }

    /// How it cuts long recordings.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// The same with another search.
    ///
    /// # Errors
    /// A search that makes no sense.
    pub fn searching(mut self, search: &Search) -> Result<Self, RecognizeError> {
        self.searcher = Searcher::new(search, &self.labels)?;
        self.times.confidence = search.confidence.map(|c| c.aggregate);
        Ok(self)
    }

    pub(super) fn features(&self) -> &features::Features {
        self.extractor.features()
    }

    pub(super) fn begin(&self) -> Result<Stand<'_>, RecognizeError> {
        let settings = &self.network.settings;
        Ok(match settings.head {
            HeadSettings::Ctc | HeadSettings::Bare => Stand::Ctc(self.searcher.ctc(settings.blank)?),
            HeadSettings::Transducer { max_symbols, .. } => {
                Stand::Transducer(Box::new(self.searcher.transducer(&self.network, max_symbols)?))
            }
        })
    }

    /// Goes on with what the head says of further frames, `[frames, _]`.
    pub(super) fn go_on(&self, search: &mut Stand<'_>, rows: &[f32], width: usize) -> Result<(), RecognizeError> {
        if rows.is_empty() {
            return Ok(());
        }
        match search {
            Stand::Transducer(search) => search.feed(&self.network, &Encoded { values: rows, width })?,
            Stand::Ctc(search) => search.feed(&Emissions { log_probs: rows, classes: width })?,
        }
        Ok(())
    }

    pub(super) fn said(&self, search: &Stand<'_>, samples: usize, times: &Times) -> Transcript {
        let duration = Duration::from_secs_f64(samples as f64 / f64::from(self.features().sample_rate()));
        times.transcript(&search.found(), &self.labels, duration)
    }

    /// What the search reads of recordings that are heard together as they are, without windows: of CTC the logarithms of
    /// probabilities, of a transducer frames as its joint takes them, `[frames, _]` of each that count.
    ///
    /// # Errors
    /// What the model cannot take.
    pub fn log_probs(&self, recordings: &[&[f32]]) -> Result<Vec<Vec<f32>>, RecognizeError> {
        Ok(Windowed::hear(self, recordings)?.into_iter().map(|rows| rows.values).collect())
    }
}

impl Recognizer for ConformerRecognizer {
    type Error = RecognizeError;

    fn sample_rate(&self) -> u32 {
        self.features().sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, RecognizeError> {
        windows::transcribe(self, recordings, self.windows.beside)
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, RecognizeError>> {
        windows::listen(self, recordings, self.windows.beside, tell)
    }

    fn live(&self, options: &LiveOptions) -> Result<LiveOf<'_, RecognizeError>, RecognizeError> {
        match self.listening() {
            Ok(listening) => Ok(Box::new(Growing::new(listening, self.searcher.is_greedy(), options))),
            // It hears stretches of speech, as others do.
            Err(RecognizeError::Normalized | RecognizeError::Stream(_)) => Ok(Box::new(Stretches::new(self, *options))),
            Err(e) => Err(e),
        }
    }
}

impl Windowed for ConformerRecognizer {
    type Error = RecognizeError;
    type Search<'r> = Stand<'r>;

    fn cut(&self) -> Cut {
        let step = self.features().hop() * self.network.settings.encoder.rate();
        Cut::new(&self.windows, self.sample_rate(), step, true)
    }

    fn rate(&self) -> u32 {
        self.sample_rate()
    }

    fn search(&self) -> Result<Stand<'_>, RecognizeError> {
        self.begin()
    }

    fn hear(&self, windows: &[&[f32]]) -> Result<Vec<Rows>, RecognizeError> {
        let (head, counted) = self.network.hear_sound(self.features(), windows, self.context)?;
        Ok(Rows::of(&head.sizes, &head.data, &counted))
    }

    fn go_on<'r>(&'r self, parts: Vec<Part<'_, Stand<'r>>>) -> Vec<Result<(), RecognizeError>> {
        let values: Vec<_> = parts.iter().map(|p| (p.values, p.width)).collect();
        let mut greedy: Vec<&mut TransducerSearch<'r, _>> = vec![];
        let mut found: Vec<Result<(), RecognizeError>> = vec![];
        for part in parts {
            match part.search {
                // They ask the network together.
                Stand::Transducer(search) => greedy.push(search),
                search => found.push(ConformerRecognizer::go_on(self, search, part.values, part.width)),
            }
        }
        if greedy.is_empty() {
            return found;
        }
        let encoded: Vec<Encoded> = values.iter().map(|(values, width)| Encoded { values, width: *width }).collect();
        search::feed_all(&self.network, greedy, &encoded).into_iter().map(|f| Ok(f?)).collect()
    }

    fn transcript(&self, search: &Stand<'_>, samples: usize) -> Transcript {
        self.said(search, samples, &self.times)
    }

    fn stream(&self) -> Option<Box<dyn Flowing<Error = RecognizeError> + '_>> {
        Some(Box::new(self.listening().ok()?))
    }
}
