//! A loaded network with its alphabet: recordings to words, letter by letter.
//!
//! What is longer than forty seconds is heard in windows (`asr::windows`), each scaled by itself. Networks
//! that mask what is behind a recording's end hear several at once; the others see it, and hear one after another.

use super::model::{Steps20, Wav2Vec2Ctc, wav2vec2};
use crate::asr::decode::search::CtcSearch;
use crate::asr::decode::{Labels, Search, Searcher, Times};
use crate::asr::windows::{self, Cut, Part, Rows, Windowed, Windows};
use crate::asr::{AsrError, Blocks, Recognizer, Tell, Transcript};
use crate::audio::features::{SampleCounts, normalized};
use crate::audio::{Batch, Samples};
use crate::import::Pretrained;
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::{OpenError, Values};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

axes! {
    /// Letters.
    Letters;
    /// The last axis of a noted stream.
    Width;
}

type Sound = Tensor<(Batch, Samples)>;
type Hear = Program<(Sound, SampleCounts), Tensor<(Batch, Steps20, Letters)>>;

/// What a network computes of recordings, for comparisons.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `[Batch, Time, Letters]`
    pub logits: Values,
    /// The convolutions' stream behind its norm.
    pub extracted: Values,
    /// The transformer's streams, before the first layer and after each.
    pub hidden: Vec<Values>,
    /// How many frames of each recording count.
    pub frames: Vec<usize>,
}

/// A loaded network with its alphabet.
pub struct Wav2Vec2Recognizer {
    model: Model<Wav2Vec2Ctc>,
    config: Config,
    /// Whether it sees only what counts, so that recordings may share a batch.
    masked: bool,
    /// Whether recordings are scaled to variance 1.
    normalize: bool,
    labels: Labels,
    times: Times,
    searcher: Searcher,
    blank: u32,
    weights: Weights,
    windows: Windows,
    /// Samples from frame to frame.
    step: usize,
    hear: OnceCell<Hear>,
}

impl Wav2Vec2Recognizer {
    /// Builds the network that a configuration describes. `preprocessor` and `letters` are what lies
    /// beside it: `preprocessor_config.json` and `vocab.json`.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(
        config: &Config,
        preprocessor: Option<&Config>,
        letters: BTreeMap<u32, String>,
        tensors: &dyn Source,
    ) -> Result<Wav2Vec2Recognizer, AsrError> {
        let old = tensors.info("wav2vec2.encoder.pos_conv_embed.conv.weight_g").is_some();
        let options = LoadOptions::new().passing_over("**.masked_spec_embed").rename(move |name| match old {
            true => name
                .replace("parametrizations.weight.original0", "weight_g")
                .replace("parametrizations.weight.original1", "weight_v"),
            false => name.to_string(),
        });
        let model = options.load(wav2vec2(config)?, tensors).map_err(OpenError::from)?;
        let flag = |key: &str, default| preprocessor.map_or(Ok(default), |p| p.flag(key, default));
        let group = config.word("feat_extract_norm")?.unwrap_or("group") == "group";
        let blank = config.count("pad_token_id")?.unwrap_or(0) as u32;
        let labels = labels(&letters, config.size("vocab_size")?);
        let steps = model.wav2vec2.feature_extractor.conv_layers.iter().map(|layer| layer.conv.steps.stride);
        let step = steps.product::<u64>() as usize;
        let frame = Duration::from_secs_f64(step as f64 / 16_000.0);
        Ok(Wav2Vec2Recognizer {
            model,
            config: config.clone(),
            masked: flag("return_attention_mask", !group)? && !group,
            normalize: flag("do_normalize", true)?,
            labels,
            times: Times { separators: vec![], ..Times::new(frame) },
            searcher: Searcher::default(),
            blank,
            weights: Weights::default(),
            windows: Windows::seconds(30, 5),
            step,
            hear: OnceCell::new(),
        })
    }

    /// Opens the network of a place.
    ///
    /// # Errors
    /// As [`load`](Self::load); an alphabet that cannot be read.
    pub fn open(pretrained: &Pretrained, device: Device, weights: Weights) -> Result<Wav2Vec2Recognizer, AsrError> {
        let config = Config::new(pretrained.path.display().to_string(), pretrained.config.clone());
        let folder = pretrained.folder();
        let preprocessor = folder.join("preprocessor_config.json");
        let preprocessor = match preprocessor.is_file() {
            true => {
                Some(Config::new(preprocessor.display().to_string(), crate::import::json::read_object(&preprocessor)?))
            }
            false => None,
        };
        let path = folder.join("vocab.json");
        let alphabet = Config::new(path.display().to_string(), crate::import::json::read_object(&path)?);
        let letters = alphabet_of(&alphabet)?;
        let mut found = Wav2Vec2Recognizer::load(&config, preprocessor.as_ref(), letters, &*pretrained.tensors)?;
        found.model.store().set_device(device);
        found.weights = weights;
        Ok(found)
    }

    /// Runs it on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    /// The blank of its head.
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// Everything about recordings that are scaled already, of which so many samples count.
    ///
    /// # Errors
    /// Recordings that are too short.
    pub fn score(&self, rows: usize, samples: Vec<f32>, counts: &[usize]) -> Result<Scores, ProgramError> {
        let masked = self.masked;
        let program = self.model.compile(|m, (x, counts): (Sound, SampleCounts)| {
            let found = m.forward(x.raw(), counts.raw(), masked);
            let all = [found.logits, found.extracted].into_iter().chain(found.hidden);
            all.map(Tensor::from_raw).collect::<Vec<Tensor<(Batch, Steps20, Width)>>>()
        })?;
        let streams = program.run(arguments(rows, samples, counts))?;
        let mut all = streams.into_iter().map(|a| Values { sizes: a.sizes().to_vec(), data: a.into_vec() });
        let mut next = || all.next().expect("the program gives logits and the extracted stream first");
        let (logits, extracted) = (next(), next());
        let frames = counts.iter().map(|n| self.frames(*n)).collect();
        Ok(Scores { logits, extracted, hidden: all.collect(), frames })
    }

    fn hearing(&self) -> Result<&Hear, ProgramError> {
        if let Some(made) = self.hear.get() {
            return Ok(made);
        }
        let (masked, normalize) = (self.masked, self.normalize);
        let program = self.model.compile(|m, (x, counts): (Sound, SampleCounts)| {
            let x = if normalize { normalized(x, counts) } else { x };
            let logits = m.forward(x.raw(), counts.raw(), masked).logits;
            Tensor::<(Batch, Steps20, Letters)>::from_raw(logits).log_softmax(Letters)
        })?;
        let program = program.with_weights(self.weights.clone())?.alike();
        Ok(self.hear.get_or_init(|| program))
    }

    /// How many frames a recording of so many samples has.
    fn frames(&self, samples: usize) -> usize {
        let layers = &self.model.wav2vec2.feature_extractor.conv_layers;
        layers.iter().fold(samples, |n, layer| {
            let steps = layer.conv.steps;
            n.checked_sub(steps.kernel as usize).map_or(0, |n| n / steps.stride as usize + 1)
        })
    }

    /// The same with another search.
    ///
    /// # Errors
    /// A search that makes no sense.
    pub fn searching(mut self, search: &Search) -> Result<Wav2Vec2Recognizer, AsrError> {
        self.searcher = Searcher::new(search, &self.labels)?;
        self.times.confidence = search.confidence.map(|c| c.aggregate);
        Ok(self)
    }

    /// The same in other windows.
    #[must_use]
    pub fn in_windows(mut self, windows: Windows) -> Wav2Vec2Recognizer {
        self.windows = windows;
        self
    }

    /// How it cuts long recordings.
    pub fn windows(&self) -> Windows {
        self.windows
    }
}

/// What letters say: nothing for signs in angle brackets.
fn labels(letters: &BTreeMap<u32, String>, classes: usize) -> Labels {
    let text = |id: u32| match letters.get(&id).map_or("", String::as_str) {
        sign if sign.starts_with('<') && sign.len() > 1 => "",
        letter => letter,
    };
    Labels::characters((0..classes as u32).map(text))
}

/// The letters of a `vocab.json`, which may hold one such for each of several languages: then the first.
fn alphabet_of(alphabet: &Config) -> Result<BTreeMap<u32, String>, ConfigError> {
    let object = alphabet.value().as_object();
    let inner = object.and_then(|o| o.values().next()).filter(|v| v.is_object());
    let object = inner.and_then(|v| v.as_object()).or(object);
    let mut letters = BTreeMap::new();
    for (letter, id) in object.into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| alphabet.wrong(letter, "a number"))?;
        letters.insert(id, letter.clone());
    }
    Ok(letters)
}

fn arguments(
    rows: usize,
    samples: Vec<f32>,
    counts: &[usize],
) -> (Array<(Batch, Samples)>, Array<(Batch,), Lengths<Samples>>) {
    let each = samples.len().checked_div(rows).unwrap_or(0);
    let counts = counts.iter().map(|n| *n as i32).collect();
    (Array::from_parts(&[rows, each], samples), Array::from_parts(&[rows], counts))
}

impl Recognizer for Wav2Vec2Recognizer {
    type Error = AsrError;

    fn sample_rate(&self) -> u32 {
        16_000
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
        windows::transcribe(self, recordings, self.windows.beside)
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, AsrError>> {
        windows::listen(self, recordings, self.windows.beside, tell)
    }
}

impl Windowed for Wav2Vec2Recognizer {
    type Error = AsrError;
    type Search<'r> = CtcSearch<'r>;

    fn cut(&self) -> Cut {
        // A network that does not mask sees what lies behind a recording.
        Cut::new(&self.windows, 16_000, self.step, self.masked)
    }

    fn rate(&self) -> u32 {
        16_000
    }

    fn search(&self) -> Result<CtcSearch<'_>, AsrError> {
        Ok(self.searcher.ctc(self.blank as usize)?)
    }

    fn hear(&self, windows: &[&[f32]]) -> Result<Vec<Rows>, AsrError> {
        let counts: Vec<usize> = windows.iter().map(|w| w.len()).collect();
        let mut longest = counts.iter().copied().max().unwrap_or(0);
        if self.frames(longest) == 0 {
            return Ok(windows.iter().map(|_| Rows::default()).collect());
        }
        if self.masked {
            longest = longest.next_multiple_of(self.step);
        }
        let mut samples = vec![0.0; windows.len() * longest];
        for (row, window) in samples.chunks_exact_mut(longest).zip(windows) {
            row[..window.len()].copy_from_slice(window);
        }
        let found = self.hearing()?.run(arguments(windows.len(), samples, &counts))?;
        let frames: Vec<i32> = counts.iter().map(|n| self.frames(*n) as i32).collect();
        Ok(Rows::of(found.sizes(), found.data(), &frames))
    }

    fn go_on<'r>(&'r self, parts: Vec<Part<'_, CtcSearch<'r>>>) -> Vec<Result<(), AsrError>> {
        parts.into_iter().map(|part| Ok(part.ctc()?)).collect()
    }

    fn transcript(&self, search: &CtcSearch<'_>, samples: usize) -> Transcript {
        let duration = Duration::from_secs_f64(samples as f64 / 16_000.0);
        let mut found = self.times.transcript(&search.found(), &self.labels, duration);
        // All words are one segment; between two of them there may be several signs for a space.
        found.text = found.segments.first().map(|s| s.text.clone()).unwrap_or_default();
        found
    }
}
