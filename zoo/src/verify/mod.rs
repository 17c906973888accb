//! Verification: a model against what the original code computed.
//!
//! A golden folder holds a checkpoint (`config.json`, `model.safetensors`) and `golden.safetensors`
//! with inputs (`in.*`), outputs (`out.*`), greedy generation (`gen.*`) and gradient norms
//! (`gradnorm.*`) of the reference implementation. [`verify`] loads the model, computes every one of
//! them, and gives a [`Report`] with a line for each: nothing that the file expects is left out
//! silently. A folder may also have `tokenizer_golden.json` (`text.rs`), or only that, and one of
//! rotary positions or features has no model (`rope.rs`, `features.rs`).
//!
//! A value passes when it is within `1e-5` of the output's largest value, plus `1e-6`: single
//! precision that sums in another order stays well within. Gradients pass within `2e-5` of the largest
//! norm of the model. Token ids must be the same.

mod causal;
mod conformer;
mod conv;
mod encoder;
mod features;
mod rope;
mod seq2seq;
mod text;
mod wav2vec2;
mod whisper;

use crate::asr::conformer::ModelSettings;
use crate::asr::conv::ConvCtc;
use crate::asr::decode::DecodeError;
use crate::asr::voice::VoiceError;
use crate::asr::wav2vec2::Wav2Vec2Recognizer;
use crate::asr::whisper::Network;
use crate::asr::{self, AsrError};
use crate::import::ImportError;
use crate::llm::config::Config;
use crate::llm::encoder::BatchError;
use crate::llm::family::{OpenError, Values};
use crate::llm::loss::LabelError;
use crate::llm::open::{self, AnyModel};
use crate::llm::seq2seq::SpecialTokens;
use crate::llm::session::SessionError;
use crate::text::TextError;
use mobilis_runtime::Device;
use mobilis_runtime::checkpoint::{Checkpoint, CheckpointError, Encoding, Source};
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use mobilis_runtime::program::ProgramError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Error relative to the largest value of an output.
pub const RELATIVE: f64 = 1e-5;
/// Error beside that.
pub const ABSOLUTE: f64 = 1e-6;

/// Why a folder cannot be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model that cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A text that cannot be continued.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Texts that do not hang together.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A tokenizer that cannot be had.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A recognizer that cannot be had.
    #[error(transparent)]
    Asr(#[from] Box<AsrError>),
    /// Labels that do not fit.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A model that hears, which cannot be had.
    #[error(transparent)]
    Voice(#[from] VoiceError),
    /// Features that cannot be had.
    #[error(transparent)]
    Features(Box<crate::audio::features::FeatureError>),
    /// An archive that cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A search that failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A tensor of `golden.safetensors` of another form than its name says.
    #[error("{}: `{name}` is {found}, expected {expected}", path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The tensor of `golden.safetensors`.
    pub name: String,
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// The largest difference, of ids how many differ; nothing where the model gave no such output.
    pub absolute: Option<f64>,
    /// The same relative to the largest value.
    pub relative: Option<f64>,
    /// The largest difference that passes.
    pub tolerance: f64,
    /// Whether it passes.
    pub passed: bool,
    /// What there is to say besides.
    pub note: String,
}

/// What became of a folder.
#[derive(Clone, Debug)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// The family, by its `model_type`.
    pub family: String,
    /// How many values the parameters hold.
    pub parameters: usize,
    /// A line for each tensor that is expected, in the order of names.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every line passes.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }
}

/// Holds everything that a folder expects against what is computed here: its model's outputs, its
/// tokenizer. `config` is the name of the configuration to read, `config.json` usually; the model runs on
/// `device`.
///
/// # Errors
/// Files that are missing or broken, a family that is not known, tensors that do not fit. What is
/// computed wrongly is in the report.
pub fn verify(folder: &Path, config: &str, device: Device) -> Result<Report, VerifyError> {
    let has = |name: &str| folder.join(name).exists();
    let mut report = Report { folder: folder.into(), family: "tokenizer".into(), parameters: 0, checks: vec![] };
    let model = has(config) || has("golden.safetensors") || !has("tokenizer_golden.json");
    if model {
        let golden = Golden::open(&folder.join("golden.safetensors"))?;
        let ends = |suffix| !golden.names_ending(suffix).is_empty();
        match beside(folder, "meta.json")?.filter(|_| !has(config)) {
            Some(settings) if ends(rope::SUFFIX) => {
                report.family = "rope".into();
                report.checks = rope::checks(&settings, &golden)?;
            }
            Some(settings) if ends(features::SUFFIX) => {
                report.family = "features".into();
                report.checks = features::checks(&settings, device, &golden)?;
            }
            _ => outputs(folder, config, device, &golden, &mut report)?,
        }
        golden.complete(&mut report.checks);
    }
    if has("tokenizer_golden.json") {
        report.checks.extend(text::checks(folder)?);
    }
    report.checks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report)
}

/// The outputs of a folder's model.
fn outputs(
    folder: &Path,
    config: &str,
    device: Device,
    golden: &Golden,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let path = folder.join(config);
    let text = std::fs::read_to_string(&path).map_err(|source| VerifyError::Read { path: path.clone(), source })?;
    let config = Config::parse(path.display().to_string(), &text).map_err(OpenError::from)?;
    let tensors = Checkpoint::open(folder.join("model.safetensors"))?;
    if ModelSettings::is_one(config.value()) {
        let network = asr::conformer::Network::load(&config, &tensors)?;
        network.set_device(device);
        report.family = "conformer".into();
        report.parameters = network.parameter_count();
        report.checks = conformer::checks(&network, &config, folder, device, golden)?;
        return Ok(());
    }
    if ConvCtc::is_one(config.value()) {
        let (model, _) = ConvCtc::load(&config, &tensors)?;
        model.store().set_device(device);
        report.family = "convolutional CTC".into();
        report.parameters = model.parameter_count();
        report.checks = conv::checks(&model, folder, golden)?;
        return Ok(());
    }
    report.family = config.model_type().map_err(OpenError::from)?.to_string();
    if report.family == "whisper" {
        let network = Network::load(&config, &tensors)?;
        network.set_device(device);
        report.parameters = network.parameter_count();
        let special =
            generation(folder, SpecialTokens::of(&config, SpecialTokens::default()).map_err(OpenError::from)?)?;
        report.checks = whisper::checks(&network, special, golden)?;
        return Ok(());
    }
    if report.family == "wav2vec2" {
        let network = Wav2Vec2Recognizer::load(&config, None, BTreeMap::new(), &tensors).map_err(Box::new)?;
        network.set_device(device);
        report.parameters = network.parameter_count();
        report.checks = wav2vec2::checks(&network, golden)?;
        return Ok(());
    }
    let model = open::open(&config, &tensors)?;
    model.set_device(device);
    report.parameters = model.parameter_count();
    report.checks = match &model {
        AnyModel::Text(model) => causal::checks(&**model, golden)?,
        AnyModel::Encoder(model) => encoder::checks(&**model, golden)?,
        AnyModel::Seq2Seq(model) => seq2seq::checks(&**model, generation(folder, model.special())?, golden)?,
    };
    Ok(())
}

/// The tokens that a text begins with: those of the folder's `generation_config.json`, before others.
fn generation(folder: &Path, others: SpecialTokens) -> Result<SpecialTokens, VerifyError> {
    match beside(folder, "generation_config.json")? {
        Some(generation) => Ok(SpecialTokens::of(&generation, others).map_err(OpenError::from)?),
        None => Ok(others),
    }
}

/// Another configuration of a folder, where it has one of the name.
fn beside(folder: &Path, name: &str) -> Result<Option<Config>, VerifyError> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|source| VerifyError::Read { path: path.clone(), source })?;
    Ok(Some(Config::parse(path.display().to_string(), &text).map_err(OpenError::from)?))
}

/// The tensors of `golden.safetensors`.
pub struct Golden {
    path: PathBuf,
    tensors: Checkpoint,
}

impl Golden {
    /// Opens the file.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn open(path: &Path) -> Result<Golden, VerifyError> {
        Ok(Golden { path: path.into(), tensors: Checkpoint::open(path)? })
    }

    /// The names that start with a prefix, in order.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.tensors.names().into_iter().filter(|n| n.starts_with(prefix)).map(String::from).collect()
    }

    /// The names that end with a suffix, in order.
    pub fn names_ending(&self, suffix: &str) -> Vec<String> {
        self.tensors.names().into_iter().filter(|n| n.ends_with(suffix)).map(String::from).collect()
    }

    /// Whether there is a tensor of the name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// The sizes of a tensor.
    ///
    /// # Errors
    /// No such tensor.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>, VerifyError> {
        Ok(self.tensors.find(name)?.sizes.clone())
    }

    /// Real numbers with their sizes.
    ///
    /// # Errors
    /// No such tensor, or another kind.
    pub fn reals(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>), VerifyError> {
        let sizes = self.sizes(name)?;
        Ok((sizes, self.tensors.read_wide(name, DType::F32)?.to_f64()))
    }

    /// Whole numbers with their sizes; truth values count 0 and 1.
    ///
    /// # Errors
    /// No such tensor, or another kind.
    pub fn wholes(&self, name: &str) -> Result<(Vec<usize>, Vec<i32>), VerifyError> {
        let found = self.tensors.find(name)?.clone();
        let data = match found.encoding {
            Encoding::Bool => self.tensors.read(name, DType::Bool)?,
            _ => self.tensors.read(name, DType::I32)?,
        };
        match data {
            Data::I32(v) => Ok((found.sizes, v)),
            other => Ok((found.sizes, other.to_f64().into_iter().map(|v| v as i32).collect())),
        }
    }

    /// Token ids `[rows, columns]`: the number of rows and all ids.
    ///
    /// # Errors
    /// No such tensor, another rank, numbers below 0.
    pub fn ids(&self, name: &str) -> Result<(usize, Vec<u32>), VerifyError> {
        let (sizes, values) = self.wholes(name)?;
        let wrong = |expected| VerifyError::Golden {
            path: self.path.clone(),
            name: name.into(),
            found: format!("of sizes {sizes:?}"),
            expected,
        };
        let [rows, columns] = sizes[..] else { return Err(wrong("token ids [rows, columns]")) };
        if rows == 0 || columns == 0 {
            return Err(wrong("at least one token"));
        }
        let ids: Result<Vec<u32>, _> = values.iter().map(|v| u32::try_from(*v)).collect();
        Ok((rows, ids.map_err(|_| wrong("token ids of at least 0"))?))
    }

    /// Adds a line for a result, if one of the name is expected.
    ///
    /// # Errors
    /// A tensor of another kind.
    pub fn expect(&self, checks: &mut Vec<Check>, name: &str, found: &Values) -> Result<(), VerifyError> {
        if self.has(name) {
            checks.push(self.compare(name, &found.sizes, &found.data)?);
        }
        Ok(())
    }

    /// Holds real numbers against the ones expected.
    ///
    /// # Errors
    /// A tensor of another kind.
    pub fn compare(&self, name: &str, sizes: &[usize], values: &[f32]) -> Result<Check, VerifyError> {
        let found = values.iter().map(|v| f64::from(*v));
        self.compare_within(name, sizes, found, |largest| RELATIVE * largest + ABSOLUTE)
    }

    /// The same with another tolerance, which may depend on the largest value expected.
    ///
    /// # Errors
    /// A tensor of another kind.
    pub fn compare_within(
        &self,
        name: &str,
        sizes: &[usize],
        values: impl Iterator<Item = f64>,
        tolerance: impl Fn(f64) -> f64,
    ) -> Result<Check, VerifyError> {
        let (expected_sizes, expected) = self.reals(name)?;
        let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
        let tolerance = tolerance(largest);
        if sizes != expected_sizes {
            let note = format!("the model gives sizes {sizes:?}");
            return Ok(Check { note, ..Check::absent(name, &expected_sizes, tolerance) });
        }
        // Infinities must be the same ones; a NaN is never right.
        let difference = |(a, b): (f64, &f64)| if a == *b { 0.0 } else { (a - b).abs() };
        let worst = |m: f64, d: f64| if d.is_nan() || m.is_nan() { f64::NAN } else { m.max(d) };
        let absolute = values.zip(&expected).map(difference).fold(0.0, worst);
        Ok(Check {
            name: name.into(),
            sizes: expected_sizes,
            absolute: Some(absolute),
            relative: Some(if largest > 0.0 { absolute / largest } else { absolute }),
            tolerance,
            passed: absolute <= tolerance,
            note: String::new(),
        })
    }

    /// Holds whole numbers against the ones expected: all must be the same.
    ///
    /// # Errors
    /// A tensor of another kind.
    pub fn compare_ids(&self, name: &str, found: &[i64]) -> Result<Check, VerifyError> {
        let (sizes, expected) = self.wholes(name)?;
        let same = |(a, b): (&i32, &i64)| i64::from(*a) == *b;
        let first = expected.iter().zip(found).position(|pair| !same(pair));
        let wrong =
            expected.iter().zip(found).filter(|pair| !same(*pair)).count() + expected.len().abs_diff(found.len());
        let note = match first {
            Some(i) => format!("number {i} is {}, expected {}", found[i], expected[i]),
            None if expected.len() != found.len() => format!("{} ids, expected {}", found.len(), expected.len()),
            None => String::new(),
        };
        let relative = Some(wrong as f64 / expected.len().max(1) as f64);
        let absolute = Some(wrong as f64);
        Ok(Check { name: name.into(), sizes, absolute, relative, tolerance: 0.0, passed: wrong == 0, note })
    }

    /// A line that fails for every tensor that is expected and that no line is about.
    fn complete(&self, checks: &mut Vec<Check>) {
        self.complete_with(&["out.", "gen.", "gradnorm."], checks);
    }

    /// The same of these prefixes.
    fn complete_with(&self, prefixes: &[&str], checks: &mut Vec<Check>) {
        for prefix in prefixes {
            for name in self.names(prefix) {
                let known = name == "gen.prompt" || name == "gen.input_ids" || checks.iter().any(|c| c.name == name);
                if !known {
                    let sizes = self.sizes(&name).unwrap_or_default();
                    let note = "the model gives no such output".to_string();
                    checks.push(Check { note, ..Check::absent(&name, &sizes, ABSOLUTE) });
                }
            }
        }
    }
}

impl Check {
    /// A line that fails because there is nothing to compare.
    fn absent(name: &str, sizes: &[usize], tolerance: f64) -> Check {
        Check {
            name: name.into(),
            sizes: sizes.into(),
            absolute: None,
            relative: None,
            tolerance,
            passed: false,
            note: String::new(),
        }
    }
}
