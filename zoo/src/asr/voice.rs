//! Why a voice cannot be found ([`super::vad`]), known ([`super::speaker`]) or understood ([`super::conv`]).

use super::decode::DecodeError;
use crate::audio::AudioError;
use crate::audio::features::FeatureError;
use crate::import::ImportError;
use crate::llm::config::ConfigError;
use mobilis_runtime::module::error::ModelError;
use mobilis_runtime::program::ProgramError;

/// Why a model of voices cannot be had, or cannot hear.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// A recording that cannot be read.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A place that cannot be opened.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A configuration that makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Features that are not known.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Tensors that do not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A search that failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A model of another kind.
    #[error("`{place}` is no {wanted}: {found}")]
    Kind {
        /// What was opened.
        place: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// A recording without enough sound.
    #[error("the recording has {found} samples, of which {model} needs at least {least}")]
    Short {
        /// How many there are.
        found: usize,
        /// The model.
        model: &'static str,
        /// How many there should be.
        least: usize,
    },
}
