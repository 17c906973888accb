//! Which files of a place hold what.

use super::gguf::Gguf;
use super::gguf::names::Renamed;
use super::torch::TorchFile;
use super::{ImportError, Pretrained, TokenizerFiles, json, merged, nemo};
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::{Source, suggest};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What was opened.
    pub path: PathBuf,
    /// Where configurations and tokenizers are.
    pub folder: PathBuf,
    /// What holds the tensors.
    pub weights: Weights,
}

/// What holds a model's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// A safetensors file, an index of several, or a folder with either.
    Safetensors(PathBuf),
    /// A GGUF file, which holds configuration and vocabulary too.
    Gguf(PathBuf),
    /// A file of PyTorch's, or an index of several.
    Torch(PathBuf),
    /// An archive of NeMo's, or a folder that one was unpacked to, with configuration and vocabulary.
    Nemo(PathBuf),
}

impl Place {
    /// The files that a path means.
    ///
    /// # Errors
    /// A folder without weights, or with several that could be meant; a file of no known format.
    pub fn at(path: &Path) -> Result<Place, ImportError> {
        if path.is_dir() {
            let weights = weights_in(path)?;
            return Ok(Place { path: path.into(), folder: path.into(), weights });
        }
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let weights = match ending(path).as_str() {
            "json" if path.to_string_lossy().ends_with(".bin.index.json") => Weights::Torch(path.into()),
            "safetensors" | "json" => Weights::Safetensors(path.into()),
            "gguf" => Weights::Gguf(path.into()),
            "bin" | "pt" | "pth" => Weights::Torch(path.into()),
            "nemo" => Weights::Nemo(path.into()),
            other => {
                let fault = format!(
                    "its ending `.{other}` is none of those of weights: `.safetensors`, `.safetensors.index.json`, `.gguf`, `.nemo`, `.bin`, `.pt`, `.pth`, `.bin.index.json`"
                );
                return Err(ImportError::Config { path: path.into(), fault });
            }
        };
        Ok(Place { path: path.into(), folder, weights })
    }

    /// The tensors alone, under the names that a model in Hugging Face's form has.
    ///
    /// # Errors
    /// Every fault of a header or an index.
    pub fn tensors(&self) -> Result<Box<dyn Source>, ImportError> {
        Ok(match &self.weights {
            Weights::Safetensors(path) => Box::new(Checkpoint::open(path)?),
            Weights::Gguf(path) => Box::new(Renamed::new(Gguf::open(path)?)?),
            Weights::Torch(path) if ending(path) == "json" => Box::new(merged::open(path)?),
            Weights::Torch(path) => Box::new(TorchFile::open(path)?),
            Weights::Nemo(path) => nemo::open(path)?.tensors,
        })
    }

    /// Reads configurations and headers. `config` is another name for `config.json`.
    ///
    /// # Errors
    /// Files that are missing, and every fault of a configuration or a header.
    pub fn open(&self, config: Option<&str>) -> Result<Pretrained, ImportError> {
        if let (Weights::Gguf(path), None) = (&self.weights, config) {
            let renamed = Renamed::new(Gguf::open(path)?)?;
            return Ok(Pretrained {
                path: self.path.clone(),
                config: renamed.config()?,
                generation_config: None,
                tokenizer: TokenizerFiles::Gguf(renamed.gguf().metadata().clone()),
                tensors: Box::new(renamed),
            });
        }
        if let (Weights::Nemo(path), None) = (&self.weights, config) {
            let archive = nemo::open(path)?;
            return Ok(Pretrained {
                path: self.path.clone(),
                tokenizer: TokenizerFiles::Nemo { config: archive.config.clone(), artifacts: archive.artifacts },
                config: archive.config,
                generation_config: None,
                tensors: archive.tensors,
            });
        }
        let config_path = self.folder.join(config.unwrap_or("config.json"));
        if !config_path.is_file() {
            let name = config_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let fault = format!(
                "there is none: it says what kind of model the weights are{}",
                suggest::did_you_mean(&name, &names_in(&self.folder))
            );
            return Err(ImportError::Config { path: config_path, fault });
        }
        let generation = self.folder.join("generation_config.json");
        let generation_config = if generation.is_file() { Some(json::read_object(&generation)?) } else { None };
        Ok(Pretrained {
            path: self.path.clone(),
            config: json::read_object(&config_path)?,
            generation_config,
            tensors: self.tensors()?,
            tokenizer: TokenizerFiles::Folder(self.folder.clone()),
        })
    }
}

/// A file's ending in small letters.
fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn weights_in(folder: &Path) -> Result<Weights, ImportError> {
    let has = |name: &str| folder.join(name).is_file();
    if has("model.safetensors") || has("model.safetensors.index.json") {
        return Ok(Weights::Safetensors(folder.into()));
    }
    if has(nemo::CONFIG) {
        return Ok(Weights::Nemo(folder.into()));
    }
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        if has(name) {
            return Ok(Weights::Torch(folder.join(name)));
        }
    }
    let names = names_in(folder);
    let of = |endings: &[&str]| -> Vec<&String> {
        names.iter().filter(|n| endings.contains(&ending(Path::new(n)).as_str())).collect()
    };
    // Of a split file, the first part means all.
    let mut gguf = of(&["gguf"]);
    gguf.retain(|n| !n.contains("-of-") || n.contains("-00001-of-"));
    if let [one] = gguf[..] {
        return Ok(Weights::Gguf(folder.join(one)));
    }
    if let [one] = of(&["nemo"])[..] {
        return Ok(Weights::Nemo(folder.join(one)));
    }
    let known: Vec<String> = of(&["safetensors", "gguf", "nemo", "bin", "pt", "pth"]).into_iter().cloned().collect();
    let found = match &known[..] {
        [] => String::new(),
        files => format!("; it holds `{}`: give the path of the one that is meant", files.join("`, `")),
    };
    Err(ImportError::NoWeights { folder: folder.into(), found })
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What lies beside a path that does not exist and has a name like it.
pub(super) fn neighbours(path: &Path) -> String {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return format!(": the folder `{}` does not exist", folder.display());
    }
    suggest::did_you_mean(&path.file_name().unwrap_or_default().to_string_lossy(), &names_in(folder))
}
