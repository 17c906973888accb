//! GGUF files: llama.cpp's checkpoints.
//!
//! One file holds what a folder of Hugging Face's holds: metadata instead of `config.json`, a
//! [`Gguf`] opens a file (or all parts of a split one) and is a [`Source`] under the *file's* names;
//! [`names`] presents the same tensors under Hugging Face's, and [`config`] the metadata as
//! a `config.json`. Quantized tensors stay quantized: what llama.cpp's converter did to rows is undone
//! on whole rows of blocks.
//!
//! | file | holds |
//! |---|---|
//! | `header.rs`, `meta.rs` | the parser, checked against everything that a file can get wrong |
//! | `tables.rs` | which tensor is which, and what the converter did to it, for each architecture |
//! | `names.rs`, `change.rs` | a source under Hugging Face's names |
//! | `config.rs`, `rope.rs` | metadata as a configuration |
//! | `vocabulary.rs` | metadata as a tokenizer |

pub(crate) mod change;
pub mod config;
pub mod header;
pub mod meta;
pub mod names;
pub(crate) mod rope;
pub mod tables;
mod vocabulary;

use header::{Entry, Fault};
use meta::Metadata;
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Raw, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened GGUF file: its header is read and checked, values are read on demand.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: PathBuf,
    parts: Vec<PathBuf>,
    metadata: Arc<Metadata>,
    tensors: BTreeMap<String, (usize, Entry)>,
}

impl Gguf {
    /// Opens a file. Of one that was split (`NAME-00001-of-00003.gguf`), all parts are opened.
    ///
    /// # Errors
    /// Every fault of a header; parts that are missing or contradict each other.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, CheckpointError> {
        let path = path.as_ref();
        let first = read(path)?;
        let fault = |fault: String| format_error(path, fault);
        let count = first.metadata.count("split.count").map_err(fault)?.unwrap_or(0);
        let mut gguf =
            Gguf { path: path.into(), parts: Vec::new(), metadata: Arc::default(), tensors: BTreeMap::new() };
        if count < 2 {
            gguf.add(path, first)?;
            return Ok(gguf);
        }
        for part in parts(path, count).map_err(fault)? {
            let header = read(&part)?;
            if header.metadata.count("split.count").map_err(fault)? != Some(count) {
                return Err(format_error(&part, format!("it is no part of the {count} of `{}`", path.display())));
            }
            gguf.add(&part, header)?;
        }
        let said = gguf.metadata.count("split.tensors.count").map_err(fault)?;
        match said {
            Some(said) if said != gguf.tensors.len() as u64 => {
                Err(fault(format!("its parts hold {} tensors, not {said}", gguf.tensors.len())))
            }
            _ => Ok(gguf),
        }
    }

    fn add(&mut self, path: &Path, header: header::Header) -> Result<(), CheckpointError> {
        let part = self.parts.len();
        self.parts.push(path.into());
        if part == 0 {
            self.metadata = Arc::new(header.metadata);
        }
        for entry in header.tensors {
            let name = entry.name.clone();
            if self.tensors.insert(name.clone(), (part, entry)).is_some() {
                return Err(format_error(path, format!("another part holds tensor `{name}` too")));
            }
        }
        Ok(())
    }

    /// What the file says about the model.
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// The files: several where the model was split.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// One tensor's place.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name).map(|(_, entry)| entry)
    }

    /// The error for something that is wrong with this file.
    pub(crate) fn fault(&self, fault: String) -> CheckpointError {
        format_error(&self.path, fault)
    }
}

impl Source for Gguf {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.entry(name).map(|e| TensorInfo { encoding: e.encoding, sizes: e.sizes.clone() })
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        let (part, entry) = &self.tensors[name];
        Ok(Raw::File { path: self.parts[*part].clone(), begin: entry.begin, len: entry.len })
    }
}

fn format_error(path: &Path, fault: String) -> CheckpointError {
    CheckpointError::Format { path: path.into(), format: "GGUF file", fault }
}

fn read(path: &Path) -> Result<header::Header, CheckpointError> {
    let failed = |source| CheckpointError::Io { action: "read", path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    header::read(&mut BufReader::new(file), length).map_err(|fault| match fault {
        Fault::Format(fault) => format_error(path, fault),
        Fault::Io(source) => failed(source),
    })
}

/// The parts that one part's name tells: `NAME-00002-of-00003.gguf`.
fn parts(path: &Path, count: u64) -> Result<Vec<PathBuf>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = format!("-of-{count:05}.gguf");
    let stem = name.strip_suffix(&end).and_then(|n| n.len().checked_sub(6).and_then(|at| n.get(..at)));
    let Some(stem) = stem.filter(|_| count <= 10_000) else {
        return Err(format!("it is a part of {count}, but is not called `NAME-00001{end}` as parts are"));
    };
    Ok((1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}{end}"))).collect())
}
