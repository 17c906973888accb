//! Models written for others: folders that `transformers` loads, safetensors files, GGUF files, NeMo's archives.
//!
//! A [`Pretrained`] goes in, whatever it was opened from; tensors go from file to file one by one, so memory
//! holds one of them. Reals can be stored in fewer bits on the way. What a format cannot hold is an error that
//! lists it.
//!
//! | file | holds |
//! |---|---|
//! | `folder.rs` | folders and safetensors files |
//! | `gguf.rs` | the writer of GGUF files |
//! | `nemo.rs`, `torch.rs` | the writer of `.nemo` archives, and of PyTorch's files |
//! | `names.rs` | tensors under GGUF's names, as llama.cpp's converter lays them out |
//! | `settings.rs` | a configuration as metadata |
//! | `mean.rs` | the mean of several checkpoints |
//! | `vocabulary.rs` | tokenizers between both worlds |

mod folder;
pub mod gguf;
mod mean;
mod names;
mod nemo;
pub(crate) use nemo::unopened;
mod settings;
mod torch;
mod vocabulary;

pub use mean::{Mean, average};

use crate::import::{ImportError, Pretrained};
use mobilis_runtime::checkpoint::{Blocks, Encoding, write::SHARD_BYTES};
use std::path::Path;

/// How reals are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are; blocks that the format cannot hold become `F32`.
    #[default]
    Keep,
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Matrices in blocks of 32 that share a scale, eight bits a value: GGUF alone.
    Q8_0,
    /// The same with four bits; embeddings and head in eight: GGUF alone.
    Q4_0,
}

impl Precision {
    /// Every precision with its name.
    pub const ALL: [(Precision, &'static str); 6] = [
        (Precision::Keep, "keep"),
        (Precision::F32, "f32"),
        (Precision::F16, "f16"),
        (Precision::BF16, "bf16"),
        (Precision::Q8_0, "q8_0"),
        (Precision::Q4_0, "q4_0"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Precision::ALL.iter().find(|(p, _)| *p == self).map_or("", |(_, name)| name)
    }

    /// The encoding that is asked for: none to keep what is there.
    fn encoding(self) -> Option<Encoding> {
        match self {
            Precision::Keep => None,
            Precision::F32 => Some(Encoding::F32),
            Precision::F16 => Some(Encoding::F16),
            Precision::BF16 => Some(Encoding::BF16),
            Precision::Q8_0 => Some(Encoding::Blocks(Blocks::Q8_0)),
            Precision::Q4_0 => Some(Encoding::Blocks(Blocks::Q4_0)),
        }
    }
}

/// How a model is written.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// How reals are stored.
    pub precision: Precision,
    /// Folders get parts of at most so many bytes.
    pub shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions { precision: Precision::Keep, shard_bytes: SHARD_BYTES }
    }
}

/// Writes a model: to a GGUF file where `to` ends in `.gguf`, to one safetensors file where it ends in
/// `.safetensors`, to an archive of NeMo's where it ends in `.nemo`, and else to a folder with configuration, tokenizer and weights, sharded above a limit, that
/// `transformers` loads. Files appear whole or not at all.
///
/// # Errors
/// A precision that the format does not have; tensors, settings or a tokenizer that GGUF has no place for; what
/// cannot be read or written.
pub fn export(model: &Pretrained, to: &Path, options: &ExportOptions) -> Result<Vec<String>, ImportError> {
    match to.extension().and_then(|e| e.to_str()) {
        Some("gguf") => gguf::export(model, to, options),
        Some("nemo") => nemo::export(model, to, options),
        Some("safetensors") => folder::weights(&*model.tensors, to, options).map(|()| Vec::new()),
        _ => folder::export(model, to, options),
    }
}

fn io<'p>(action: &'static str, path: &'p Path) -> impl Fn(std::io::Error) -> ImportError + 'p {
    move |source| ImportError::Io { action, path: path.into(), source }
}
