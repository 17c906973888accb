//! Several sources as one: the parts of a sharded checkpoint in PyTorch's format.

use super::torch::TorchFile;
use super::{ImportError, json};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Raw, TensorInfo};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Named tensors of several files.
#[derive(Debug)]
pub(super) struct Merged {
    path: PathBuf,
    parts: Vec<TorchFile>,
    /// Which part holds each tensor.
    of: BTreeMap<String, usize>,
}

/// Opens the parts that `pytorch_model.bin.index.json` names.
///
/// # Errors
/// Faults of the index and of the parts; tensors that are not where the index says.
pub(super) fn open(index: &Path) -> Result<Merged, ImportError> {
    let fault = |fault: String| ImportError::Config { path: index.into(), fault };
    let value = json::read_object(index)?;
    let map = value.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| fault("`weight_map` is missing, or no object".into()))?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    let mut merged = Merged { path: index.into(), parts: Vec::new(), of: BTreeMap::new() };
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| fault(format!("the part of tensor `{name}` is no text")))?;
        // A name such as `../secret` must not lead out of the checkpoint.
        let mut components = Path::new(file).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(fault(format!(
                "the part `{file}` of tensor `{name}` is not the name of a file beside the index"
            )));
        }
        let part = match files.get(file) {
            Some(part) => *part,
            None => {
                merged.parts.push(TorchFile::open(folder.join(file))?);
                files.insert(file, merged.parts.len() - 1);
                merged.parts.len() - 1
            }
        };
        if merged.parts[part].info(name).is_none() {
            return Err(fault(format!("tensor `{name}` is said to be in `{file}`, but is not")));
        }
        merged.of.insert(name.clone(), part);
    }
    Ok(merged)
}

impl Source for Merged {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.of.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.of.get(name).and_then(|part| self.parts[*part].info(name))
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        self.parts[self.of[name]].raw(name)
    }
}
