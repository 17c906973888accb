//! What can be wrong with a place that a model is to be imported from.

use mobilis_runtime::checkpoint::CheckpointError;
use std::path::PathBuf;

/// Why a model cannot be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is nothing at the path.
    #[error("there is nothing at `{place}`{hint}")]
    NotFound {
        /// What was asked for.
        place: String,
        /// What may have been meant, as the end of a sentence.
        hint: String,
    },
    /// The operating system refuses.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A configuration is faulty.
    #[error("`{}` is faulty: {fault}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A folder without weights.
    #[error(
        "`{}` holds no weights: `model.safetensors`, `pytorch_model.bin`, one of these with `.index.json`, or one `.gguf` file is expected{found}",
        .folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What is there instead, as the end of a sentence.
        found: String,
    },
    /// An id of the Hub whose files cannot be had.
    #[error("`{id}` is neither a file nor a folder here, and as a model of the Hugging Face Hub it {fault}; its files would be looked for in `{}`", .cache.display())]
    Hub {
        /// The id.
        id: String,
        /// What is wrong.
        fault: String,
        /// Where a copy would be.
        cache: PathBuf,
    },
    /// A GGUF file of a model that has no counterpart here.
    #[error("`{}` holds a model of architecture `{architecture}`, which is not known{hint}", .path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture.
        architecture: String,
        /// The nearest, as the end of a sentence.
        hint: String,
    },
    /// What was asked of an export makes no file.
    #[error("{0}")]
    Export(String),
    /// Tensors cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
