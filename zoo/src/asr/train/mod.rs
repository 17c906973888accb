//! Training recognizers from recipes.
//!
//! ```text
//! recipe ─▶ Settings ─┬─▶ Feed: corpora ─ plan ─ threads ─▶ batches ─┐
//!                     └─▶ Learner: a network, its loss, its scores ──┴─▶ run ─▶ folder
//! ```
//!
//! What a family of networks brings is [`Acoustic`]: what it says of a batch, and its loss. Convolutions with CTC or
//! classes and Conformers with CTC, RNN-T, TDT or both are trained by one [`Learner`]; a [`Vocabulary`] is what they
//! say: classes, letters, or pieces of words. [`run`] is the same for all: it trains, validates, keeps the best and the
//! last, writes a log, and goes on where a killed run stopped, bit for bit. What a run leaves is a
//! folder:
//!
//! | file | what |
//! |---|---|
//! | `recipe.json` | the recipe, complete with defaults |
//! | `last.safetensors` | parameters, moments, counters: what the run goes on from |
//! | `tokenizer.model`, .. | the tokenizer, where there is one |
//! | `best.nemo`, `last.nemo` | the model, for `mobilis transcribe`, `evaluate`, and NeMo |
//! | `step-000120.nemo`, .. | the models of the best validations, where more than one is kept (`save_top_k`) |
//! | `state.json` | the best score so far, and what is kept |
//! | `log.jsonl` | a line a note: losses, rates, scores |
//! | `events.out.tfevents.*` | the same for TensorBoard |

mod acoustic;
mod archived;
mod corpus;
mod feed;
mod folder;
mod learner;
mod network;
mod prepared;
mod run;
mod settings;
mod tokens;

pub use acoustic::{Acoustic, Objective, Said};
pub use corpus::Corpus;
pub use feed::{Args, Arrays, Augment, Feed, LeftOut, samples};
pub use folder::kept;
pub use network::NetworkRecipe;
pub use prepared::Prepared;
pub use run::{Learner, Note, Outcome, Scores, Session, run};
pub use settings::{Accelerator, Experiment, Interval, Kept, Trainer};
pub use tokens::{TokensRecipe, Vocabulary};

use crate::asr::data::DataError;
use crate::audio::AudioError;
use crate::recipe::RecipeError;
use mobilis_runtime::checkpoint::CheckpointError;
use mobilis_runtime::devices::DeviceError;
use mobilis_runtime::prelude::*;
use mobilis_runtime::train::TrainError;
use std::path::PathBuf;

axes! {
    /// Labels of the utterance that has most in a batch.
    pub Tokens;
}

/// Why a training run stops.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The recipe is faulty.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A list of a corpus is faulty.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A recording is faulty.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The device is not here.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A model cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the run's folder.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is a run in the folder that this one does not go on with.
    #[error("`{}` {fault}", .folder.display())]
    Folder {
        /// The run's folder.
        folder: PathBuf,
        /// What is there, and what to do.
        fault: String,
    },
    /// The model fails, or cannot be built or written.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl TrainingError {
    /// What goes wrong with a model, in its own words.
    pub fn model(e: impl std::error::Error + Send + Sync + 'static) -> TrainingError {
        TrainingError::Model(Box::new(e))
    }
}
