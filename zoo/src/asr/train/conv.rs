//! Convolutional recognizers as learners: NeMo's `EncDecCTCModel` and `EncDecClassificationModel` over
//! [`ConvEncoder`].
//!
//! Samples go in and the loss comes out of one program: features, masking of parts of them
//! (SpecAugment, in training alone), encoder and head. What is written is a `.nemo` archive with the
//! recipe's `model` section for its configuration.

use super::TrainingError;
use super::feed::{self, Args, Arrays, Feed};
use super::front::Front;
use super::run::{Learner, Scores};
use crate::asr::conv::{AnyConv, Classifier, ConvAxes, ConvEncoder, ConvSettings, Counts, CtcHead, Steps};
use crate::asr::data::Utterance;
use crate::asr::decode::{self, Emissions, Hypothesis, Token};
use crate::asr::metrics::{self, Unit};
use crate::asr::{Recognizer, Segment, Transcript, Word};
use crate::audio::Batch;
use crate::export::{self, ExportOptions};
use crate::import::{Pretrained, TokenizerFiles, nemo};
use crate::llm::config::Config;
use crate::recipe::{Keys, RecipeError};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Checkpoint, write::Writer};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::module::store::Data;
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::ops::ctc::CtcOptions;
use mobilis_runtime::ops::{reduce, slice};
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Program;
use mobilis_runtime::suggest::did_you_mean;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Classes = <AnyConv as ConvAxes>::Classes;

/// What reads the encoder's stream.
pub enum Head {
    /// Letters, frame by frame.
    Ctc(CtcHead<AnyConv>),
    /// One label for the whole recording.
    Classifier(Classifier<AnyConv>),
}

impl Module for Head {
    fn kind(&self) -> &'static str {
        match self {
            Head::Ctc(head) => head.kind(),
            Head::Classifier(head) => head.kind(),
        }
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        match self {
            Head::Ctc(head) => head.visit(visitor),
            Head::Classifier(head) => head.visit(visitor),
        }
    }
}

/// Encoder and head under the names of NeMo's checkpoints.
#[neural_module(no_default)]
pub struct Network {
    /// The encoder.
    pub encoder: ConvEncoder<AnyConv>,
    /// The head.
    pub decoder: Head,
}

/// How the losses of a batch's sequences are joined: NeMo's `ctc_reduction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    MeanBatch,
    MeanVolume,
    Mean,
    Sum,
}

/// Programs that hear a validation corpus.
enum Judge {
    Ctc(Program<Args, (Tensor<(Batch, Steps, Classes), LogProbs>, Counts<Steps>, Tensor<(Batch,)>)>),
    Classifier(Program<Args, (Tensor<(Batch,), Index>, Tensor<()>)>),
}

/// A convolutional model that learns.
pub struct ConvLearner {
    model: Model<Network>,
    front: Front,
    labels: Vec<String>,
    reduction: Reduction,
    /// Frames that become one.
    stride: u64,
    /// What the archive's configuration is.
    config: Value,
    judge: Judge,
}

/// What a recipe's `model` section says of the network: read before the data is.
#[derive(Clone, Debug)]
pub struct ConvRecipe {
    target: &'static str,
    /// Letters or classes.
    pub labels: Vec<String>,
    /// Hertz.
    pub rate: u32,
    reduction: Reduction,
    encoder: Value,
    decoder: Value,
    front: Value,
    seed: u64,
}

const CTC: &str = "nemo.collections.asr.models.EncDecCTCModel";
const CLASSIFICATION: &str = "nemo.collections.asr.models.EncDecClassificationModel";

/// NeMo's names for both: older archives name the module too.
const TARGETS: [&str; 5] = [
    CTC,
    CLASSIFICATION,
    "nemo.collections.asr.models.ctc_models.EncDecCTCModel",
    "nemo.collections.asr.models.classification_models.EncDecClassificationModel",
    "nemo.collections.asr.models.EncDecFrameClassificationModel",
];

impl ConvRecipe {
    /// Reads what the network needs.
    ///
    /// # Errors
    /// Keys and classes that are not known; no labels, or two alike.
    pub fn read(keys: &mut Keys, seed: u64) -> Result<ConvRecipe, RecipeError> {
        let target = match keys.choice("target", &TARGETS)? {
            word if word.contains("Frame") => return Err(keys.fault("target", "frame by frame is not trained here")),
            word if word.contains("Classification") => CLASSIFICATION,
            _ => CTC,
        };
        keys.without_effect(&[
            "log_prediction",
            "skip_nan_grad",
            "repeat",
            "dropout",
            "separable",
            "timesteps",
            "n_filters",
            "kernel_size_factor",
            "model_defaults",
            "decoding",
            "loss",
            "log_every_n_steps",
            "init_from_nemo_model",
            "is_regression_task",
        ]);
        let rate = keys.or("sample_rate", 16_000u64)?;
        let rate = u32::try_from(rate).ok().filter(|r| (1000..=384_000).contains(r));
        let rate = rate.ok_or_else(|| keys.fault("sample_rate", "must be 1000 to 384000 Hz"))?;
        let labels = keys.required::<Vec<String>>("labels")?;
        for (i, label) in labels.iter().enumerate() {
            if labels[..i].contains(label) {
                return Err(keys.fault("labels", format!("have \"{label}\" twice")));
            }
        }
        if labels.is_empty() || labels.len() > 1 << 20 {
            return Err(keys.fault("labels", format!("are {}; at least one is expected", labels.len())));
        }
        let reduction = match keys.choice("ctc_reduction", &["mean_batch", "mean_volume", "mean", "sum"])? {
            "mean_batch" => Reduction::MeanBatch,
            "mean_volume" => Reduction::MeanVolume,
            "mean" => Reduction::Mean,
            _ => Reduction::Sum,
        };
        let part = |keys: &mut Keys, key: &str| keys.get::<Value>(key).map(|v| v.unwrap_or(Value::Null));
        let mut front = serde_json::Map::new();
        for key in ["preprocessor", "spec_augment", "crop_or_pad_augment"] {
            front.insert(key.into(), part(keys, key)?);
        }
        let (encoder, decoder) = (keys.required::<Value>("encoder")?, part(keys, "decoder")?);
        Ok(ConvRecipe { target, labels, rate, reduction, encoder, decoder, front: front.into(), seed })
    }

    /// Reads what an archive's configuration says of the network: of NeMo's or written here.
    ///
    /// # Errors
    /// A model of another kind; no labels.
    pub fn archived(config: &Value) -> Result<ConvRecipe, RecipeError> {
        let target = match config["target"].as_str().unwrap_or_default() {
            name if name.ends_with("EncDecClassificationModel") => CLASSIFICATION,
            name if name.ends_with("EncDecCTCModel") => CTC,
            other => {
                return Err(RecipeError::new(
                    "target",
                    format!("is \"{other}\"; {CTC} and {CLASSIFICATION} are known"),
                ));
            }
        };
        if config["encoder"]["jasper"].is_null() {
            return Err(RecipeError::new("encoder.jasper", "is missing: the encoder is no convolutional one"));
        }
        let labels = [&config["labels"], &config["decoder"]["vocabulary"]];
        let labels = labels.into_iter().find_map(|l| l.as_array().map(|l| l.iter().filter_map(Value::as_str)));
        let labels: Vec<String> = labels.into_iter().flatten().map(str::to_string).collect();
        if labels.is_empty() {
            return Err(RecipeError::new("labels", "are missing"));
        }
        let rate = config["sample_rate"].as_u64().or(config["preprocessor"]["sample_rate"].as_u64()).unwrap_or(16_000);
        let rate = u32::try_from(rate).map_err(|_| RecipeError::new("sample_rate", format!("is {rate}")))?;
        let front = json!({
            "preprocessor": config["preprocessor"], "crop_or_pad_augment": config["crop_or_pad_augment"],
            "nemo_version": config["nemo_version"],
        });
        let (encoder, decoder) = (config["encoder"].clone(), config["decoder"].clone());
        Ok(ConvRecipe { target, labels, rate, reduction: Reduction::MeanBatch, encoder, decoder, front, seed: 0 })
    }

    /// Whether it tells recordings apart rather than letters.
    pub fn classifies(&self) -> bool {
        self.target == CLASSIFICATION
    }

    /// The labels of an utterance as the network's indices.
    ///
    /// # Errors
    /// An utterance without text or label; a letter or a label that the network does not have.
    pub fn labelled(&self, places: &HashMap<String, i32>, utterance: &Utterance) -> Result<Vec<i32>, String> {
        if self.classifies() {
            let label = utterance.label.as_ref().ok_or("no `label` or `command` is given")?;
            let place = places.get(label);
            let unknown = || format!("`{label}` is not one of `model.labels`{}", did_you_mean(label, &self.labels));
            return Ok(vec![*place.ok_or_else(unknown)?]);
        }
        let text = utterance.text.as_ref().ok_or("no `text` is given")?;
        let lower = !self.labels.iter().any(|l| l.chars().any(char::is_uppercase));
        let text = if lower { text.to_lowercase() } else { text.clone() };
        let mut letter = [0; 4];
        let of = |c: char| {
            let place = places.get(c.encode_utf8(&mut letter) as &str);
            place.copied().ok_or_else(|| format!("its text has '{c}', which `model.labels` do not"))
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().map(of).collect()
    }

    /// Labels by name.
    pub fn places(&self) -> HashMap<String, i32> {
        self.labels.iter().zip(0..).map(|(l, i)| (l.clone(), i)).collect()
    }

    /// Builds the network, with new values or with those of an archive. `config` is the whole `model` section.
    ///
    /// # Errors
    /// Features, blocks or heads that make no sense; tensors that do not fit.
    pub fn build(&self, config: &Value, tensors: Option<&dyn Source>) -> Result<ConvLearner, TrainingError> {
        let front = Front::new(&self.front, self.rate)?;
        let encoder = ConvSettings::nemo(&Config::new("`model.encoder`", self.encoder.clone()));
        let encoder = encoder.map_err(TrainingError::model)?;
        let fault = |key: &str, fault: String| TrainingError::Recipe(RecipeError::new(key, fault));
        if encoder.features != front.width() as u64 {
            let words = format!("is {}, and the preprocessor gives {} features", encoder.features, front.width());
            return Err(fault("model.encoder.feat_in", words));
        }
        if let Some(inputs) = self.decoder["feat_in"].as_u64().filter(|n| *n != encoder.hidden()) {
            let words = format!("is {inputs}, and the last block gives {} channels", encoder.hidden());
            return Err(fault("model.decoder.feat_in", words));
        }
        if let Some(classes) = self.decoder["num_classes"].as_i64().filter(|n| *n > 0)
            && classes != self.labels.len() as i64
        {
            return Err(fault(
                "model.decoder.num_classes",
                format!("is {classes}, and there are {} labels", self.labels.len()),
            ));
        }
        let classes = self.labels.len() + usize::from(!self.classifies());
        let decoder = match self.classifies() {
            true => Head::Classifier(Classifier::default()),
            false => Head::Ctc(CtcHead::default()),
        };
        let sizes = ConvEncoder::<AnyConv>::sizes(&encoder).with::<Classes>(classes);
        let sizes = front.sizes(sizes);
        let network = Network { encoder: ConvEncoder::new(&encoder), decoder };
        let model = match tensors {
            None => Model::init_with(network, self.seed, sizes),
            // Features are computed, not loaded.
            Some(tensors) => LoadOptions::new().sizes(sizes).passing_over("preprocessor.**").load(network, tensors),
        };
        let model = model.map_err(TrainingError::model)?;
        let judge = judge(&model, &front, self.labels.len())?;
        let mut config = config.clone();
        if let Some(object) = config.as_object_mut() {
            object.insert("target".into(), self.target.into());
            // Features as NeMo has computed them since this version.
            object.insert("nemo_version".into(), front.nemo_version().into());
            object.insert("encoder".into(), with_target(&self.encoder, "ConvASREncoder"));
            let preprocessor = with_target(&self.front["preprocessor"], "AudioToMelSpectrogramPreprocessor");
            object.insert("preprocessor".into(), preprocessor);
            object.insert("decoder".into(), decoder_config(self, encoder.hidden()));
        }
        let (labels, reduction) = (self.labels.clone(), self.reduction);
        Ok(ConvLearner { model, front, labels, reduction, stride: encoder.stride(), config, judge })
    }
}

/// A section with the class that NeMo makes of it.
fn with_target(section: &Value, class: &str) -> Value {
    let mut section = if section.is_object() { section.clone() } else { json!({}) };
    if section["_target_"].is_null() {
        section["_target_"] = format!("nemo.collections.asr.modules.{class}").into();
    }
    section
}

/// The head's section as NeMo wants it, whatever the recipe left out.
fn decoder_config(recipe: &ConvRecipe, hidden: u64) -> Value {
    let class = if recipe.classifies() { "ConvASRDecoderClassification" } else { "ConvASRDecoder" };
    let mut section = if recipe.decoder.is_object() { recipe.decoder.clone() } else { json!({}) };
    section["_target_"] = format!("nemo.collections.asr.modules.{class}").into();
    section["feat_in"] = hidden.into();
    section["num_classes"] = recipe.labels.len().into();
    match recipe.classifies() {
        true => {
            section["return_logits"] = true.into();
            section["pooling_type"] = "avg".into();
        }
        false => section["vocabulary"] = recipe.labels.clone().into(),
    }
    section
}

/// The stream of a batch, and how many of its steps count.
fn stream(network: &Network, front: &Front, args: &Args) -> (crate::asr::conv::Stream<AnyConv>, Counts<Steps>) {
    let (features, counted) = front.trace(args.0, args.1);
    network.encoder.forward(features, counted)
}

/// The first label of each recording, `[Batch]`.
fn first_labels(args: &Args) -> Tensor<(Batch,), Index> {
    let one = slice::slice(args.2.raw(), 1, Extent::constant(0), 1, mobilis_runtime::graph::Dim::fixed(1));
    Tensor::from_raw(reduce::reduce(one, reduce::Kind::Sum, &[1]))
}

fn judge(model: &Model<Network>, front: &Front, blank: usize) -> Result<Judge, TrainingError> {
    let options = CtcOptions { blank, zero_infinity: true };
    match &model.module().decoder {
        Head::Ctc(_) => model
            .compile(|network: &Network, args: Args| {
                let (stream, steps) = stream(network, front, &args);
                let Head::Ctc(head) = &network.decoder else { unreachable!("the head is the model's") };
                let log_probs = head.forward(stream);
                let losses = log_probs.ctc_loss(args.2, steps, args.3, options).each();
                (log_probs, steps, losses)
            })
            .map(Judge::Ctc),
        Head::Classifier(_) => model
            .compile(|network: &Network, args: Args| {
                let (stream, steps) = stream(network, front, &args);
                let Head::Classifier(head) = &network.decoder else { unreachable!("the head is the model's") };
                let logits = head.forward(stream, steps);
                (logits.argmax(Classes::AXIS), logits.cross_entropy(first_labels(&args)))
            })
            .map(Judge::Classifier),
    }
    .map_err(TrainingError::model)
}

impl ConvLearner {
    /// Opens a model that was trained, here or with NeMo.
    ///
    /// # Errors
    /// An archive that cannot be read, or holds a model of another kind.
    pub fn open(path: &Path) -> Result<ConvLearner, TrainingError> {
        ConvLearner::of(&nemo::open(path).map_err(TrainingError::model)?)
    }

    /// The same of an archive that was opened.
    ///
    /// # Errors
    /// A model of another kind; tensors that do not fit.
    pub fn of(archive: &nemo::Archive) -> Result<ConvLearner, TrainingError> {
        ConvRecipe::archived(&archive.config)?.build(&archive.config, Some(&*archive.tensors))
    }

    /// Where it runs from now on.
    pub fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    /// What computes its features.
    pub fn features(&self) -> &crate::audio::features::Features {
        self.front.features()
    }

    /// How many values it learns.
    pub fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    /// Whether it tells recordings apart rather than letters.
    pub fn classifies(&self) -> bool {
        matches!(self.judge, Judge::Classifier(_))
    }

    /// What is heard in the first `count` recordings of a batch, with the tokens that it is made of, and the sum of
    /// their losses.
    fn hear(&self, arrays: &Arrays, count: usize) -> Result<(Vec<(String, Vec<Token>)>, f64), TrainingError> {
        match &self.judge {
            Judge::Classifier(program) => {
                let (guesses, mean) = program.run(arrays.feed()).map_err(TrainingError::model)?;
                let named = |guess: &i32| (self.text([*guess as u32]), vec![]);
                let loss = f64::from(mean.item()) * count as f64;
                Ok((guesses.data().iter().take(count).map(named).collect(), loss))
            }
            Judge::Ctc(program) => {
                let (log_probs, steps, losses) = program.run(arrays.feed()).map_err(TrainingError::model)?;
                let classes = self.labels.len() + 1;
                let row = log_probs.data().len() / count.max(1);
                let emissions = |i: usize| {
                    let steps = (steps.data()[i].max(0) as usize).min(row / classes);
                    Emissions { log_probs: &log_probs.data()[i * row..][..steps * classes], classes }
                };
                let emissions: Vec<Emissions> = (0..count).map(emissions).collect();
                let found = decode::ctc::greedy(&emissions, classes - 1, None).map_err(TrainingError::model)?;
                let written = |h: Hypothesis| (self.text(h.ids()), h.tokens);
                let loss = losses.data().iter().map(|l| f64::from(*l)).sum();
                Ok((found.into_iter().map(written).collect(), loss))
            }
        }
    }

    /// What indices of letters say.
    fn text(&self, ids: impl IntoIterator<Item = u32>) -> String {
        ids.into_iter().filter_map(|id| self.labels.get(id as usize)).map(String::as_str).collect()
    }
}

impl Learner for ConvLearner {
    type Network = Network;

    fn model(&self) -> &Model<Network> {
        &self.model
    }

    fn loss(&self) -> Box<dyn FnOnce(&Network, Args) -> Tensor![] + '_> {
        Box::new(|network, args| {
            let (stream, steps) = stream(network, &self.front, &args);
            match &network.decoder {
                Head::Classifier(head) => head.forward(stream, steps).cross_entropy(first_labels(&args)),
                Head::Ctc(head) => {
                    let options = CtcOptions { blank: self.labels.len(), zero_infinity: true };
                    let losses = head.forward(stream).ctc_loss(args.2, steps, args.3, options);
                    match self.reduction {
                        Reduction::MeanBatch => losses.mean_batch(),
                        Reduction::MeanVolume => losses.mean_volume(),
                        Reduction::Mean => losses.mean(),
                        Reduction::Sum => losses.sum(),
                    }
                }
            }
        })
    }

    fn score(&self, feed: &Arc<Feed>) -> Result<Scores, TrainingError> {
        let (mut loss, mut heard) = (0.0, vec![]);
        for batch in feed.once() {
            let (places, arrays) = batch?;
            let (found, sum) = self.hear(&arrays, places.len())?;
            loss += sum;
            let said = |place: &usize| self.text(feed.utterances[*place].1.iter().map(|id| *id as u32));
            heard.extend(places.iter().map(said).zip(found.into_iter().map(|f| f.0)));
        }
        let count = heard.len().max(1) as f64;
        let pairs = || heard.iter().map(|(said, heard)| (said.as_str(), heard.as_str()));
        let loss = ("loss", loss / count);
        Ok(match &self.judge {
            Judge::Classifier(_) => {
                let right = heard.iter().filter(|(said, heard)| said == heard).count();
                Scores { values: vec![("accuracy", right as f64 / count), loss], greater: true }
            }
            Judge::Ctc(_) => {
                let rate = |unit| metrics::corpus(pairs(), unit).rate();
                let values = vec![("wer", rate(Unit::Words)), ("cer", rate(Unit::Characters)), loss];
                Scores { values, greater: false }
            }
        })
    }

    fn save(&self, path: &Path) -> Result<PathBuf, TrainingError> {
        let to = path.with_extension("nemo");
        let tensors = path.with_extension("weights.safetensors");
        {
            let store = self.model.store().lock();
            let buffers = self.front.buffers();
            let buffers: Vec<_> = buffers.into_iter().map(|(n, sizes, v)| (n, sizes, Data::F32(v))).collect();
            let mut writer = Writer::new().metadata("format", "pt");
            for declared in self.model.catalog().vars() {
                if let Some(entry) = store.get(declared.id) {
                    writer = writer.add(declared.name(), &entry.sizes, &entry.data)?;
                }
            }
            for (name, sizes, values) in &buffers {
                writer = writer.add(name, sizes, values)?;
            }
            writer.save(&tensors)?;
        }
        let model = Pretrained {
            path: tensors.clone(),
            config: self.config.clone(),
            generation_config: None,
            tensors: Box::new(Checkpoint::open(&tensors)?),
            tokenizer: TokenizerFiles::Folder(path.parent().unwrap_or(Path::new("")).to_path_buf()),
        };
        export::export(&model, &to, &ExportOptions::default()).map_err(TrainingError::model)?;
        drop(model);
        // What is left behind is read by nobody.
        let _ = std::fs::remove_file(&tensors);
        Ok(to)
    }
}

impl Recognizer for ConvLearner {
    type Error = TrainingError;

    fn sample_rate(&self) -> u32 {
        self.front.features().sample_rate()
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, TrainingError> {
        if recordings.is_empty() {
            return Ok(vec![]);
        }
        // Nobody asks for the loss.
        let labels = vec![&[0][..]; recordings.len()];
        let arrays = feed::arrays(self.front.features(), recordings, &labels);
        let (found, _) = self.hear(&arrays, recordings.len())?;
        let rate = f64::from(self.sample_rate());
        let frame = self.front.features().hop() as f64 * self.stride as f64 / rate;
        let time = |frames: usize| Duration::from_secs_f64(frames as f64 * frame);
        let transcript = |((text, tokens), recording): ((String, Vec<Token>), &&[f32])| {
            let duration = Duration::from_secs_f64(recording.len() as f64 / rate);
            let mut words: Vec<Word> = vec![];
            let mut within = false;
            for token in &tokens {
                let letter = self.labels.get(token.id as usize).map_or("", String::as_str);
                if letter.trim().is_empty() {
                    within = false;
                    continue;
                }
                if !within {
                    words.push(Word { start: time(token.start), ..Word::default() });
                    within = true;
                }
                if let Some(word) = words.last_mut() {
                    word.text.push_str(letter);
                    word.end = time(token.end).min(duration);
                }
            }
            let (start, end) = match (words.first(), words.last()) {
                (Some(first), Some(last)) => (first.start, last.end),
                _ => (Duration::ZERO, duration),
            };
            let ids = tokens.iter().map(|t| t.id).collect();
            let segment = Segment { start, end, text: text.clone(), tokens: ids, words, confidence: None };
            let segments = if text.is_empty() { vec![] } else { vec![segment] };
            Transcript { text, language: None, duration, segments }
        };
        Ok(found.into_iter().zip(recordings).map(transcript).collect())
    }
}
