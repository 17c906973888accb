//! Which recognizer a place holds.

use super::canary::CanaryRecognizer;
use super::conformer::{ConformerRecognizer, ModelSettings, Network, RecognizeError};
use super::conv::{ClassRecognizer, ConvClassifier, ConvCtc, ConvRecognizer};
use super::decode::{Labels, Search};
use super::live::{Live, LiveOptions, News};
use super::wav2vec2::Wav2Vec2Recognizer;
use super::whisper::WhisperRecognizer;
use super::{AsrError, Blocks, LiveOf, Recognizer, Tell, Transcript, Windows};
use crate::audio::AudioError;
use crate::audio::features::Features;
use crate::import::json::read_object;
use crate::import::{OpenOptions, Pretrained, nemo};
use crate::llm::config::Config;
use crate::llm::family::OpenError;
use mobilis_runtime::prelude::{Device, Weights};
use mobilis_runtime::suggest::did_you_mean;
use std::path::Path;
use std::time::Duration;

/// How a recognizer is opened.
#[derive(Clone, Debug)]
pub struct AsrOptions {
    /// How the place is found.
    pub open: OpenOptions,
    /// Where it runs.
    pub device: Device,
    /// How its products read weights.
    pub weights: Weights,
    /// How it searches. Families that search otherwise take no other than the default.
    pub search: Search,
    /// How long the part of a window is that counts, in recordings that are longer than a window; each family has a
    /// length of its own. Whisper's windows are of thirty seconds always, Canary's of up to forty.
    pub window: Option<Duration>,
    /// How many recordings are worked on side by side. No transcript depends on it.
    pub batch: usize,
}

impl Default for AsrOptions {
    fn default() -> AsrOptions {
        let (open, weights, search) = (OpenOptions::new(), Weights::default(), Search::default());
        AsrOptions { open, device: Device::Cpu, weights, search, window: None, batch: 8 }
    }
}

impl AsrOptions {
    /// A family's windows with what was asked for.
    fn windows(&self, own: Windows) -> Windows {
        let core = self.window.unwrap_or(own.core);
        Windows { core, margin: own.margin.min(core), beside: self.batch }
    }
}

/// A recognizer of some family.
pub enum AnyRecognizer {
    /// A Whisper, whose languages and tasks can be chosen.
    Whisper(Box<WhisperRecognizer>),
    /// A Canary, whose languages can be chosen.
    Canary(Box<CanaryRecognizer>),
    /// Any other.
    Other(Box<dyn Recognizer<Error = AsrError>>),
}

impl AnyRecognizer {
    /// The recognizer.
    pub fn recognizer(&self) -> &dyn Recognizer<Error = AsrError> {
        match self {
            AnyRecognizer::Whisper(one) => &**one,
            AnyRecognizer::Canary(one) => &**one,
            AnyRecognizer::Other(one) => &**one,
        }
    }
}

/// The families of Hugging Face's folders, by their `model_type`.
const KNOWN: [&str; 5] = ["whisper", "wav2vec2", "parakeet_ctc", "parakeet_rnnt", "parakeet_tdt"];

/// A recognizer whose errors are one kind among others.
struct Among<R>(R);

impl<R: Recognizer> Recognizer for Among<R>
where
    AsrError: From<R::Error>,
    R::Error: From<AudioError>,
{
    type Error = AsrError;

    fn sample_rate(&self) -> u32 {
        self.0.sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
        Ok(self.0.transcribe(recordings)?)
    }

    fn listen(&self, recordings: Vec<Blocks<'_>>, tell: &mut Tell<'_>) -> Vec<Result<Transcript, AsrError>> {
        self.0.listen(recordings, tell).into_iter().map(|found| Ok(found?)).collect()
    }

    fn live(&self, options: &LiveOptions) -> Result<LiveOf<'_, AsrError>, AsrError> {
        Ok(Box::new(Among(self.0.live(options)?)))
    }
}

impl<E> Live for Among<LiveOf<'_, E>>
where
    AsrError: From<E>,
{
    type Error = AsrError;

    fn feed(&mut self, samples: &[f32]) -> Result<News, AsrError> {
        Ok(self.0.feed(samples)?)
    }

    fn finish(&mut self) -> Result<News, AsrError> {
        Ok(self.0.finish()?)
    }
}

/// Refuses a search that the family does not know.
fn plain(options: &AsrOptions, why: &'static str) -> Result<(), AsrError> {
    if options.search.is_plain() {
        return Ok(());
    }
    Err(AsrError::Unable { what: "search with a beam, a language model, phrases or confidence", why })
}

/// The recognizer of an archive of NeMo's.
fn archive(place: &str, options: &AsrOptions) -> Result<AnyRecognizer, AsrError> {
    let archive = nemo::open(Path::new(place))?;
    let config = Config::new(place, archive.config.clone());
    if ConvClassifier::is_one(&archive.config) {
        plain(options, "it tells recordings apart and finds no tokens")?;
        if options.weights != Weights::default() {
            let why = "it has few, and reads them as they are stored";
            return Err(AsrError::Unable { what: "store its weights in another format", why });
        }
        let found = ClassRecognizer::open(&archive, options.device)?;
        let windows = options.windows(found.windows());
        return Ok(AnyRecognizer::Other(Box::new(Among(found.in_windows(windows)))));
    }
    if ConvCtc::is_one(&archive.config) {
        let found = ConvRecognizer::open(archive)?.searching(&options.search)?.storing(options.weights.clone());
        let windows = options.windows(found.windows());
        let found = found.in_windows(windows);
        found.set_device(options.device);
        return Ok(AnyRecognizer::Other(Box::new(Among(found))));
    }
    if CanaryRecognizer::is_one(&archive.config) {
        plain(options, "Canary writes its text token by token; its configuration says with how many beams")?;
        let found = CanaryRecognizer::open(&archive)?;
        found.set_device(options.device);
        return Ok(AnyRecognizer::Canary(Box::new(found)));
    }
    if !ModelSettings::is_one(&archive.config) {
        let target = nemo::target(&archive.config).unwrap_or("a model without `target`").to_string();
        return Err(OpenError::Family { model_type: target, known: NEMO.into(), hint: String::new() }.into());
    }
    conformer(ConformerRecognizer::nemo(&config, &*archive.tensors)?, options)
}

/// A Conformer with what was asked for.
fn conformer(found: ConformerRecognizer, options: &AsrOptions) -> Result<AnyRecognizer, AsrError> {
    let found = found.searching(&options.search)?.storing(options.weights.clone());
    let windows = options.windows(found.windows());
    found.network().set_device(options.device);
    Ok(AnyRecognizer::Other(Box::new(Among(found.in_windows(windows)))))
}

/// The recognizer of a folder that Hugging Face's library wrote of a Parakeet.
fn parakeet(pretrained: &Pretrained, config: &Config) -> Result<ConformerRecognizer, AsrError> {
    let path = pretrained.folder().join("preprocessor_config.json");
    let preprocessor = Config::new(path.display().to_string(), read_object(&path)?);
    let features = Features::hugging_face(&preprocessor).map_err(RecognizeError::from)?;
    let network = Network::load(config, &*pretrained.tensors)?;
    let tokenizer = pretrained.tokenizer.open()?;
    // The blank has no text; classes behind the tokenizer's last have none either.
    let tokens = (0..network.settings.classes).map(|id| match id == network.settings.blank {
        true => String::new(),
        false => tokenizer.token(id as u32).unwrap_or_default(),
    });
    let labels = Labels::sentence_pieces(tokens.collect::<Vec<_>>());
    Ok(ConformerRecognizer::new(network, features, labels)?)
}

/// What of NeMo's is known.
const NEMO: &str = "Conformer and FastConformer with CTC, RNN-T or TDT, Canary, and convolutional encoders (Jasper, QuartzNet, Citrinet, MatchboxNet)";

/// Opens the recognizer of a place: a folder, a file, an archive of NeMo's, or an id on the Hugging Face
/// Hub.
///
/// # Errors
/// A place that cannot be read, a family that is not known or hears nothing, tensors that do not fit.
pub fn open(place: &str, options: &AsrOptions) -> Result<AnyRecognizer, AsrError> {
    if nemo::is_nemo(Path::new(place)) {
        return archive(place, options);
    }
    let pretrained = options.open.open(place)?;
    let config = Config::new(pretrained.path.display().to_string(), pretrained.config.clone());
    match config.model_type()? {
        "whisper" => {
            plain(options, "Whisper writes its text token by token; it has a prompt for names and words")?;
            let found = WhisperRecognizer::open(&pretrained, options.device, options.weights.clone())?;
            Ok(AnyRecognizer::Whisper(Box::new(found)))
        }
        "wav2vec2" => {
            let found = Wav2Vec2Recognizer::open(&pretrained, options.device, options.weights.clone())?;
            let windows = options.windows(found.windows());
            Ok(AnyRecognizer::Other(Box::new(found.searching(&options.search)?.in_windows(windows))))
        }
        _ if ModelSettings::is_one(&pretrained.config) => conformer(parakeet(&pretrained, &config)?, options),
        other => {
            let hint = did_you_mean(other, KNOWN);
            Err(OpenError::Family { model_type: other.into(), known: KNOWN.join(", "), hint }.into())
        }
    }
}
