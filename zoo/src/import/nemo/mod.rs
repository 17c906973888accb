//! NeMo's archives: `.nemo` files, and the folders that they unpack to.
//!
//! A `.nemo` is a tar, since 1.7 without compression and before with gzip, of `./model_config.yaml`,
//! `./model_weights.ckpt` and of *artifacts*: files that the configuration refers to as `nemo:NAME`, such as
//! `nemo:0123..ef_tokenizer.model`. NeMo unpacks it to a temporary folder, imports whatever class `target`
//! names and lets Python run the pickle in the weights (`save_restore_connector.py`, CVE-2025-23304). Here
//! nothing is unpacked and nothing is run: the tar is read for where its members lie ([`container`]), the YAML
//! is text with limits ([`yaml`]), the weights are read by [`super::torch`], which calls nothing. Tensors of an
//! archive without compression stay in the file until they are asked for; a compressed one is held in memory,
//! within a limit.
//!
//! Three forms are opened alike: the file, the unpacked folder, and a folder with `config.json` and
//! `model.safetensors`, where the configuration has NeMo's `target`.

pub mod container;
pub mod yaml;

use super::torch::TorchFile;
use super::{ImportError, json};
use crate::text::{TextError, Tokenizer};
use container::{Container, Member};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::Checkpoint;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The member that holds the configuration.
pub const CONFIG: &str = "model_config.yaml";
/// The member that holds the weights.
pub const WEIGHTS: &str = "model_weights.ckpt";
/// What a reference to an artifact begins with.
pub const REFERENCE: &str = "nemo:";
/// No tokenizer is larger.
const LONGEST_ARTIFACT: u64 = 256 << 20;

/// A model as NeMo saved it, before anything is built from it.
#[derive(Debug)]
pub struct Archive {
    /// The file or folder.
    pub path: PathBuf,
    /// The `model` part of the configuration, with `target` and `nemo_version`: an object.
    pub config: Value,
    /// The weights under NeMo's names.
    pub tensors: Box<dyn Source>,
    /// The files beside them.
    pub artifacts: Artifacts,
}

/// The files that came with a model: vocabularies, above all.
#[derive(Clone, Debug)]
pub struct Artifacts {
    path: PathBuf,
    held: Held,
}

#[derive(Clone, Debug)]
enum Held {
    Folder(Vec<String>),
    Container(Arc<Container>),
}

/// Whether a path is NeMo's: a `.nemo` file, an unpacked one, or a folder whose `config.json` has a `target` of
/// NeMo's.
pub fn is_nemo(path: &Path) -> bool {
    if path.is_dir() {
        return path.join(CONFIG).is_file()
            || json::read_object(&path.join("config.json")).is_ok_and(|config| target(&config).is_some());
    }
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("nemo"))
}

/// The class that a configuration is for: `nemo.collections.asr.models.ctc_models.EncDecCTCModel`.
pub fn target(config: &Value) -> Option<&str> {
    config.get("target").and_then(Value::as_str).filter(|t| t.starts_with("nemo."))
}

/// Opens an archive or a folder of NeMo's.
///
/// # Errors
/// What cannot be read; a tar, a configuration or weights that are faulty, or hold what no model needs; models
/// that were split over several devices.
pub fn open(path: &Path) -> Result<Archive, ImportError> {
    if path.is_dir() { open_folder(path) } else { open_file(path) }
}

fn open_file(path: &Path) -> Result<Archive, ImportError> {
    let container = Arc::new(Container::open(path)?);
    let config = read_config(&container, path)?;
    let weights = required(&container, WEIGHTS, path)?;
    let tensors: Box<dyn Source> = Box::new(match container.memory() {
        Some(bytes) => TorchFile::in_memory(path, bytes.clone(), weights.begin, weights.len)?,
        None => TorchFile::within(path, weights.begin, weights.len)?,
    });
    let artifacts = Artifacts { path: path.into(), held: Held::Container(container) };
    Ok(Archive { path: path.into(), config, tensors, artifacts })
}

/// The number of tensors of an archive's bytes, for tests and fuzzing.
///
/// # Errors
/// Those of [`open`].
pub fn check(bytes: Vec<u8>) -> Result<usize, ImportError> {
    let path = Path::new("bytes.nemo");
    let container = Container::of_bytes(bytes, path)?;
    let _ = read_config(&container, path)?;
    let weights = required(&container, WEIGHTS, path)?;
    let bytes = container.memory().cloned().unwrap_or_default();
    Ok(TorchFile::in_memory(path, bytes, weights.begin, weights.len)?.names().len())
}

fn required(container: &Container, name: &str, path: &Path) -> Result<Member, ImportError> {
    container.get(name).ok_or_else(|| {
        let split = container.names().find(|n| n.starts_with("mp_rank_") || n.starts_with("tp_rank_"));
        let fault = match split {
            Some(part) => split_over_devices(part),
            None => {
                let names: Vec<&str> = container.names().take(8).collect();
                format!("it has no member `{name}`, but `{}`", names.join("`, `"))
            }
        };
        ImportError::Config { path: path.into(), fault }
    })
}

fn split_over_devices(part: &str) -> String {
    format!("its weights are split over several devices (`{part}`): merge them into one part with NeMo first")
}

fn read_config(container: &Container, path: &Path) -> Result<Value, ImportError> {
    let member = required(container, CONFIG, path)?;
    let text = container
        .read(member, yaml::LONGEST as u64)
        .map_err(|fault| ImportError::Config { path: path.into(), fault: format!("its `{CONFIG}`: {fault}") })?;
    parsed(&text, path, CONFIG)
}

fn parsed(text: &[u8], path: &Path, name: &str) -> Result<Value, ImportError> {
    let within = |fault| ImportError::Config { path: path.into(), fault: format!("its `{name}`: {fault}") };
    let text = std::str::from_utf8(text).map_err(|e| within(format!("no UTF-8 text: {e}")))?;
    let mut config = yaml::parse(text).map_err(within)?;
    // Older archives hold the whole experiment.
    if let Some(model) = config.get_mut("model").filter(|m| m.is_object()) {
        config = model.take();
    }
    match config {
        Value::Object(_) => Ok(config),
        other => Err(within(format!("an object is expected, not {}", json::kind(&other)))),
    }
}

fn open_folder(path: &Path) -> Result<Archive, ImportError> {
    let entries = fs::read_dir(path).map_err(|source| ImportError::Io { action: "read", path: path.into(), source })?;
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let (config, tensors): (Value, Box<dyn Source>) = if path.join(CONFIG).is_file() {
        if let Some(part) = names.iter().find(|n| n.starts_with("mp_rank_") || n.starts_with("tp_rank_")) {
            return Err(ImportError::Config { path: path.into(), fault: split_over_devices(part) });
        }
        let config = parsed(json::read_text(&path.join(CONFIG))?.as_bytes(), path, CONFIG)?;
        (config, Box::new(TorchFile::open(path.join(WEIGHTS))?))
    } else {
        (json::read_object(&path.join("config.json"))?, Box::new(Checkpoint::open(path)?))
    };
    names.retain(|n| path.join(n).is_file());
    let artifacts = Artifacts { path: path.into(), held: Held::Folder(names) };
    Ok(Archive { path: path.into(), config, tensors, artifacts })
}

impl Artifacts {
    /// The names of the files beside configuration and weights.
    pub fn names(&self) -> Vec<&str> {
        let own = |n: &&str| ![CONFIG, WEIGHTS, "config.json", "model.safetensors"].contains(n);
        match &self.held {
            Held::Folder(names) => names.iter().map(String::as_str).filter(own).collect(),
            Held::Container(container) => container.names().filter(own).collect(),
        }
    }

    /// The bytes of an artifact by its name, or by the reference `nemo:NAME` that a configuration has.
    ///
    /// # Errors
    /// No such file; one of more than 256 MiB; what cannot be read.
    pub fn read(&self, reference: &str) -> Result<Vec<u8>, ImportError> {
        let name = reference.strip_prefix(REFERENCE).unwrap_or(reference);
        let fault = |fault: String| ImportError::Config { path: self.path.clone(), fault };
        let missing = || {
            let hint = mobilis_runtime::suggest::did_you_mean(name, self.names());
            fault(format!("it has no artifact `{name}`{hint}"))
        };
        match &self.held {
            Held::Folder(names) => {
                // Names are those of the folder's own files: a reference cannot lead out of it.
                names.iter().find(|n| *n == name).ok_or_else(missing)?;
                let path = self.path.join(name);
                let failed = |source| ImportError::Io { action: "read", path: path.clone(), source };
                let len = fs::metadata(&path).map_err(failed)?.len();
                if len > LONGEST_ARTIFACT {
                    return Err(fault(format!("its artifact `{name}` has {len} bytes, more than is believed")));
                }
                fs::read(&path).map_err(failed)
            }
            Held::Container(container) => {
                let member = container.get(name).ok_or_else(missing)?;
                container.read(member, LONGEST_ARTIFACT).map_err(|why| fault(format!("its artifact `{name}`: {why}")))
            }
        }
    }

    /// The tokenizer that a part of a configuration describes (`tokenizer`, or one language's part of it): a
    /// SentencePiece model, or a list of word pieces.
    ///
    /// # Errors
    /// Another kind of tokenizer; artifacts that are missing or faulty.
    pub fn tokenizer(&self, settings: &Value) -> Result<Tokenizer, TextError> {
        let invalid = |why: String| TextError::Invalid { what: format!("tokenizer of `{}`", self.path.display()), why };
        let text = |key: &str| settings.get(key).and_then(Value::as_str);
        let read = |reference: &str| self.read(reference).map_err(|e| invalid(e.to_string()));
        match text("type").unwrap_or("bpe") {
            "bpe" | "spe" => {
                let reference = text("model_path").map(str::to_string).or_else(|| self.ending("tokenizer.model"));
                let reference = reference.ok_or_else(|| invalid("`tokenizer.model_path` is missing".into()))?;
                Tokenizer::from_sentencepiece(&read(&reference)?, Default::default())
            }
            "wpe" => {
                let reference = text("vocab_path").map(str::to_string).or_else(|| self.ending("vocab.txt"));
                let reference = reference.ok_or_else(|| invalid("`tokenizer.vocab_path` is missing".into()))?;
                let vocab = String::from_utf8(read(&reference)?).map_err(|e| invalid(e.to_string()))?;
                Tokenizer::from_word_pieces(&vocab, Default::default())
            }
            other => Err(invalid(format!("its type `{other}` is not read: `bpe` and `wpe` are"))),
        }
    }

    fn ending(&self, name: &str) -> Option<String> {
        self.names().into_iter().find(|n| n.ends_with(name)).map(str::to_string)
    }
}
