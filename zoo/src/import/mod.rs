//! Public checkpoints, from wherever they lie.
//!
//! A place goes in: a folder as Hugging Face's library writes it, a file of one of its formats, a
//! GGUF file, a file of PyTorch's, an archive of NeMo's, or the id of a model on the Hub. Out comes a [`Pretrained`]:
//! the configuration *in Hugging Face's spelling*, the tensors *under Hugging Face's names*
//! ([`Source`]), and what makes the tokenizer. Whoever builds a model from it need not know what
//! kind of place it was.
//!
//! Headers are read and checked, values stay where they are until they are asked for. Nothing in
//! a file is believed, and nothing of it is run.
//!
//! | file | holds |
//! |---|---|
//! | `place.rs` | which files of a place are meant |
//! | `gguf/` | llama.cpp's files |
//! | `torch/`, `merged.rs` | PyTorch's files, and several of them as one |
//! | `nemo/` | NeMo's archives, with NeMo's configuration and names |
//! | `hub.rs` | ids of the Hub, its cache |
//! | `json.rs` | configurations |
//! | `headers.rs` | the tensors of a source without their values |

mod error;
pub mod gguf;
mod headers;
pub mod hub;
pub mod json;
mod merged;
pub mod nemo;
mod place;
pub mod torch;

pub use error::ImportError;
pub use gguf::meta::Metadata;
pub use headers::Headers;
pub use hub::Progress;
pub use place::{Place, Weights};

use crate::text::{TextError, Tokenizer};
use mobilis_runtime::Source;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files beside weights and configuration that belong to a tokenizer or to a model's use: what is
/// downloaded with a model, and copied as it is where one is converted.
pub(crate) const BESIDE: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
];

/// A model as it was published, before anything is built from it.
#[derive(Debug)]
pub struct Pretrained {
    /// The folder or file that was opened, in the Hub's cache where the place was an id.
    pub path: PathBuf,
    /// The configuration in Hugging Face's spelling: an object.
    pub config: Value,
    /// The defaults for generating text, where there are any: an object.
    pub generation_config: Option<Value>,
    /// The weights under Hugging Face's names, as they are stored.
    pub tensors: Box<dyn Source>,
    /// What makes the tokenizer.
    pub tokenizer: TokenizerFiles,
}

/// Where a model's tokenizer and chat template come from.
#[derive(Clone, Debug)]
pub enum TokenizerFiles {
    /// A folder with `tokenizer.json` or the files of an older kind of tokenizer, and with
    /// `tokenizer_config.json` and `chat_template.jinja` where there are any.
    Folder(PathBuf),
    /// The metadata of a GGUF file.
    Gguf(Arc<Metadata>),
    /// The configuration and the artifacts of an archive of NeMo's.
    Nemo {
        /// The configuration, of which `tokenizer` counts.
        config: Value,
        /// The files.
        artifacts: nemo::Artifacts,
    },
}

impl TokenizerFiles {
    /// The tokenizer, with its chat templates.
    ///
    /// # Errors
    /// No files that make one, or faulty ones.
    pub fn open(&self) -> Result<Tokenizer, TextError> {
        match self {
            TokenizerFiles::Folder(folder) => Tokenizer::from_folder(folder),
            TokenizerFiles::Gguf(metadata) => {
                let invalid = |why| TextError::Invalid { what: "GGUF vocabulary".into(), why };
                Tokenizer::from_gguf(metadata.vocabulary().map_err(invalid)?)
            }
            TokenizerFiles::Nemo { config, artifacts } => artifacts.tokenizer(&config["tokenizer"]),
        }
    }
}

/// How a place is opened.
#[derive(Clone, Default)]
pub struct OpenOptions {
    config: Option<String>,
    revision: Option<String>,
    offline: bool,
    cache: Option<PathBuf>,
    endpoint: Option<String>,
    progress: Option<Arc<dyn Fn(Progress<'_>) + Send + Sync>>,
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions")
            .field("config", &self.config)
            .field("revision", &self.revision)
            .field("offline", &self.offline)
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// `config.json`, the Hub's `main`, its usual cache.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Another name for the configuration in the place's folder: `config_hub.json`.
    #[must_use]
    pub fn config(mut self, file: &str) -> Self {
        self.config = Some(file.into());
        self
    }

    /// A branch, tag or commit on the Hub.
    #[must_use]
    pub fn revision(mut self, revision: &str) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Never asks the network: the Hub's cache alone counts. So does the environment's
    /// `HF_HUB_OFFLINE`.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Another folder for the Hub's cache than `HF_HUB_CACHE`, `$HF_HOME/hub` or
    /// `~/.cache/huggingface/hub`.
    #[must_use]
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Another address of the Hub, or of a mirror, than `HF_ENDPOINT` or `https://huggingface.co`.
    #[must_use]
    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Is told of downloads as they proceed.
    #[must_use]
    pub fn on_progress(mut self, tell: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    /// Opens a place.
    ///
    /// # Errors
    /// As for [`Pretrained::open`].
    pub fn open(&self, place: &str) -> Result<Pretrained, ImportError> {
        self.find(place)?.open(self.config.as_deref())
    }

    /// Finds the files of a place without reading them.
    ///
    /// # Errors
    /// A place that is not there; a folder without weights, or with too many; files of the Hub
    /// that cannot be had.
    pub fn find(&self, place: &str) -> Result<Place, ImportError> {
        let path = Path::new(place);
        if path.exists() {
            return Place::at(path);
        }
        match hub::Id::parse(place) {
            Some(id) => Place::at(&hub::fetch(&id, self)?),
            None => Err(ImportError::NotFound { place: place.into(), hint: place::neighbours(path) }),
        }
    }
}

impl Pretrained {
    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        if self.path.is_dir() { &self.path } else { self.path.parent().unwrap_or(Path::new("")) }
    }

    /// Opens a place: a folder with `config.json` and weights (safetensors, sharded or not; GGUF;
    /// PyTorch's `.bin`), a file of these formats, an archive of NeMo's (`.nemo`), or the id of a model on the Hugging Face Hub
    /// (`owner/name`; `owner/name/file.gguf` for one file of several), which is looked up in the
    /// Hub's cache first and then downloaded.
    ///
    /// ```no_run
    /// use mobilis_zoo::import::Pretrained;
    /// let pretrained = Pretrained::open("HuggingFaceTB/SmolLM2-135M-Instruct")?;
    /// println!("{} with {} tensors", pretrained.config["model_type"], pretrained.tensors.names().len());
    /// # Ok::<(), mobilis_zoo::import::ImportError>(())
    /// ```
    ///
    /// # Errors
    /// A place that is not there (with where it was looked for), files that are missing, and every
    /// fault of a configuration or a header.
    pub fn open(place: &str) -> Result<Pretrained, ImportError> {
        OpenOptions::new().open(place)
    }
}
