//! Who speaks: recordings as vectors that are near each other where the voice is the same.
//!
//! An [`Embedder`] gives a vector for a recording; [`cosine`] says how near two are. Three families: [`resemblyzer`]
//! (GE2E, an LSTM over mel energies), and NeMo's speaker models ([`nemo`]) with the bodies of TitaNet
//! ([`super::conv`]) and ECAPA ([`ecapa`]), whose frames a [`pooling`] with attention joins. [`loss`] trains them.

pub mod ecapa;
pub mod loss;
pub mod nemo;
pub mod pooling;
pub mod resemblyzer;

use super::voice::VoiceError;
use crate::import::OpenOptions;
use mobilis_runtime::Device;
use mobilis_runtime::checkpoint::Source;
use std::path::Path;

/// A model that knows voices.
pub trait Embedder {
    /// The rate of recordings, in hertz.
    fn sample_rate(&self) -> u32;

    /// Runs on another device from now on.
    fn set_device(&self, device: Device);

    /// The vector of a recording, of length 1.
    ///
    /// # Errors
    /// A recording that is too short; a model that cannot be run.
    fn embed(&self, recording: &[f32]) -> Result<Vec<f32>, VoiceError>;
}

/// How near two vectors are: 1 where they point the same way; 0 where one is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 { dot(a, b) / length } else { 0.0 }
}

/// A vector of length 1; zeros stay.
fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    vector
}

/// Opens an embedder: a `.nemo` archive of a speaker model, or a file or a folder of Resemblyzer's weights.
///
/// # Errors
/// Nothing there, a model of another kind, tensors that do not fit.
pub fn open(place: &Path) -> Result<Box<dyn Embedder>, VoiceError> {
    if crate::import::nemo::is_nemo(place) {
        return Ok(Box::new(nemo::SpeakerModel::open(crate::import::nemo::open(place)?)?));
    }
    let tensors: Box<dyn Source> = OpenOptions::new().find(&place.display().to_string())?.tensors()?;
    if tensors.info("lstm.weight_ih_l0").is_none() || tensors.info("linear.weight").is_none() {
        let found = format!("it has tensors such as `{}`", tensors.names().first().copied().unwrap_or("none"));
        let wanted = "speaker model (Resemblyzer's, or one of NeMo's)";
        return Err(VoiceError::Kind { place: place.display().to_string(), wanted, found });
    }
    Ok(Box::new(resemblyzer::Resemblyzer::load(&*tensors)?))
}
