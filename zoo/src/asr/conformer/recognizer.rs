//! A model with its features and its tokens: recordings to transcripts, whole or while they come in.
//!
//! Attention over a whole recording costs the square of its length, so what is longer than half a minute is heard
//! in windows that overlap: of each, the frames in the middle count, and the search goes on from window to
//! window; models for streams hear it as a stream. Memory is that of a window, however long the recording is. Each recording is heard by itself, so that
//! its transcript is the same in any company.

use super::model::HeadSettings;
use super::network::{Features, Heard, Network};
use super::settings::Context;
use super::streaming::{StreamError, Streams};
use crate::asr::decode::search::{CtcSearch, TransducerSearch};
use crate::asr::decode::{DecodeError, Emissions, Encoded, Hypothesis, Labels, Search, Searcher, Times, Transducer};
use crate::asr::{Recognizer, Transcript};
use crate::audio::features::{self, Extractor, FeatureError, Normalize, Version};
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::{OpenError, Values};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use std::cell::RefCell;
use std::time::Duration;

/// Seconds of a window that count, and seconds around them that are heard for their sake.
const WINDOW: [usize; 2] = [30, 5];

/// Why a recording is not recognized.
#[derive(Debug, thiserror::Error)]
pub enum RecognizeError {
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
    network: Network,
    extractor: Extractor,
    labels: Labels,
    times: Times,
    searcher: Searcher,
    context: Option<Context>,
}

/// Where the search in a recording stands.
enum Stand<'r> {
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
        let labels = match config.inner("tokenizer") {
            Some(tokenizer) if tokenizer.word("type")? == Some("wpe") => Labels::word_pieces(words),
            Some(_) => Labels::sentence_pieces(words),
            None => Labels::characters(words),
        };
        Self::new(Network::load(config, tensors)?, features, labels)
    }

    /// A model, its features, and its tokens.
    ///
    /// # Errors
    /// Features of another width than the model's.
    pub fn new(network: Network, features: features::Features, labels: Labels) -> Result<Self, RecognizeError> {
        let seconds = features.hop() as f64 / f64::from(features.sample_rate());
        let frame = Duration::from_secs_f64(seconds * network.settings.encoder.factor as f64);
        let extractor = Extractor::new(features, Device::Cpu)?;
        let times = Times::new(frame);
        let searcher = Searcher::default();
        Ok(ConformerRecognizer { network, extractor, labels, times, searcher, context: None })
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

    /// The same with another search.
    ///
    /// # Errors
    /// A search that makes no sense.
    pub fn searching(mut self, search: &Search) -> Result<Self, RecognizeError> {
        self.searcher = Searcher::new(search, &self.labels)?;
        self.times.confidence = search.confidence.map(|c| c.aggregate);
        Ok(self)
    }

    fn features(&self) -> &features::Features {
        self.extractor.features()
    }

    fn search(&self) -> Result<Stand<'_>, RecognizeError> {
        let settings = &self.network.settings;
        Ok(match settings.head {
            HeadSettings::Ctc | HeadSettings::Bare => Stand::Ctc(self.searcher.ctc(settings.blank)?),
            HeadSettings::Transducer { max_symbols, .. } => {
                Stand::Transducer(Box::new(self.searcher.transducer(&self.network, max_symbols)?))
            }
        })
    }

    /// Goes on with what the head says of further frames, `[frames, _]`.
    fn go_on(&self, search: &mut Stand<'_>, rows: &[f32], width: usize) -> Result<(), RecognizeError> {
        if rows.is_empty() {
            return Ok(());
        }
        match search {
            Stand::Transducer(search) => search.feed(&self.network, &Encoded { values: rows, width })?,
            Stand::Ctc(search) => search.feed(&Emissions { log_probs: rows, classes: width })?,
        }
        Ok(())
    }

    /// What the model hears in a part of a recording.
    fn hear(&self, samples: &[f32]) -> Result<Heard, RecognizeError> {
        let found = self.extractor.run(&[samples])?;
        let counted = found.counted[0].min(found.frames);
        let values = Values { sizes: vec![1, found.frames, found.width], data: found.values };
        Ok(self.network.hear(&Features { values, lengths: vec![counted] }, self.context, false)?)
    }

    fn one(&self, samples: &[f32]) -> Result<Transcript, RecognizeError> {
        let rate = self.features().sample_rate() as usize;
        let step = self.features().hop() * self.network.settings.encoder.factor;
        let [core, margin] = WINDOW.map(|seconds| (seconds * rate).next_multiple_of(step));
        if samples.len() > core + 2 * margin
            && let Ok(mut listening) = self.listen()
        {
            // A stream's frames are those of the whole.
            for part in samples.chunks(core) {
                listening.feed(part)?;
            }
            return listening.finish();
        }
        let mut search = self.search()?;
        let mut begin = 0;
        while begin < samples.len() {
            let whole = begin == 0 && samples.len() <= core + 2 * margin;
            let end = if whole { samples.len() } else { (begin + core).min(samples.len()) };
            let from = begin.saturating_sub(margin);
            let heard = self.hear(&samples[from..(end + margin).min(samples.len())])?;
            let (frames, width) = (heard.lengths[0], heard.head.sizes[2]);
            let first = ((begin - from) / step).min(frames);
            // The last window has all that is left, an unfinished frame too.
            let last = if end == samples.len() { frames } else { (first + (end - begin) / step).min(frames) };
            self.go_on(&mut search, &heard.head.data[first * width..last * width], width)?;
            begin = end;
        }
        Ok(self.transcript(&search, samples.len()))
    }

    fn transcript(&self, search: &Stand<'_>, samples: usize) -> Transcript {
        let duration = Duration::from_secs_f64(samples as f64 / f64::from(self.features().sample_rate()));
        self.times.transcript(&search.found(), &self.labels, duration)
    }

    /// Listens to a recording that comes in: [`Listening::feed`].
    ///
    /// # Errors
    /// A model that sees what is later, or whose features depend on the whole recording.
    pub fn listen(&self) -> Result<Listening<'_>, RecognizeError> {
        let settings = self.features().settings();
        if settings.is_some_and(|s| !matches!(s.normalize, Normalize::None)) {
            return Err(RecognizeError::Normalized);
        }
        let streams = self.network.streams(1, self.context)??;
        // Frames whose windows reach before what is kept are not computed from it; the first sample is not
        // sharpened by one before it.
        let reach = settings.map_or(0, |s| s.n_fft / 2 + 1);
        let before = reach.div_ceil(self.features().hop());
        let streams = RefCell::new(streams);
        let search = self.search()?;
        Ok(Listening { recognizer: self, streams, search, samples: vec![], kept: 0, before, reach, frames: 0, all: 0 })
    }
}

impl Recognizer for ConformerRecognizer {
    type Error = RecognizeError;

    fn sample_rate(&self) -> u32 {
        self.features().sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, RecognizeError> {
        recordings.iter().map(|samples| self.one(samples)).collect()
    }
}

/// A recording that comes in.
pub struct Listening<'r> {
    recognizer: &'r ConformerRecognizer,
    streams: RefCell<Streams<'r>>,
    search: Stand<'r>,
    /// The last samples, from number `kept` on: those that frames to come are made of.
    samples: Vec<f32>,
    kept: usize,
    /// Frames before the next one whose samples are kept.
    before: usize,
    /// Samples on both sides that a frame is made of.
    reach: usize,
    /// Frames of features so far.
    frames: usize,
    /// Samples so far.
    all: usize,
}

impl Listening<'_> {
    /// Hears further samples: what was understood up to now.
    ///
    /// # Errors
    /// What the model cannot take.
    pub fn feed(&mut self, samples: &[f32]) -> Result<Transcript, RecognizeError> {
        self.samples.extend_from_slice(samples);
        self.all += samples.len();
        let hop = self.recognizer.features().hop();
        // Frame t is made of the samples around `t * hop`.
        let ready = self.all.checked_sub(self.reach).map_or(0, |n| n / hop + 1);
        self.hear(ready.max(self.frames), false)
    }

    /// Says that nothing more comes: the whole transcript.
    ///
    /// # Errors
    /// What the model cannot take.
    pub fn finish(mut self) -> Result<Transcript, RecognizeError> {
        let all = self.recognizer.features().frames(self.all);
        self.hear(all, true)
    }

    /// Goes on up to frame `ready` of the features, not included.
    fn hear(&mut self, ready: usize, end: bool) -> Result<Transcript, RecognizeError> {
        let features = self.recognizer.features();
        let streams = self.streams.get_mut();
        if ready > self.frames {
            let found = self.recognizer.extractor.run(&[&self.samples])?;
            let first = self.frames - self.kept / features.hop();
            let new = &found.values[first * found.width..(first + ready - self.frames) * found.width];
            streams.feed(0, new)?;
            self.frames = ready;
            let keep = self.frames.saturating_sub(self.before) * features.hop();
            self.samples.drain(..(keep - self.kept).min(self.samples.len()));
            self.kept = keep;
        }
        if end && self.all > 0 {
            streams.end(0)?;
        }
        loop {
            let parts = streams.step()?;
            if parts.is_empty() {
                break;
            }
            for part in parts.iter().filter(|p| p.frames > 0) {
                self.recognizer.go_on(&mut self.search, &part.head, part.head.len() / part.frames)?;
            }
        }
        Ok(self.recognizer.transcript(&self.search, self.all))
    }
}
