//! Voice activity: where in a recording somebody speaks.
//!
//! A [`Detector`] gives the probability of speech, step by step; [`segments()`] makes of these the parts in which
//! somebody speaks, and [`smooth`] does so by NeMo's rules. Families: [`silero`], a small recurrent network that hears
//! streams; NeMo's convolutional [`marblenet`] for frames of 20 ms, and for [`windows`] of 0.63 s. [`open`] tells them
//! apart.
//!
//! Recordings come in blocks of any sizes ([`Listener::push`]) and memory does not grow with their length; the
//! probabilities do not depend on the blocks.

pub mod marblenet;
pub mod segments;
pub mod silero;
pub mod smooth;
pub mod windows;

pub use segments::{SegmentOptions, Speech, segments};
pub use smooth::{Rules, Smoothing, ruled, smoothed};

use super::voice::VoiceError;
use crate::import::nemo;
use mobilis_runtime::Device;
use mobilis_runtime::checkpoint::{Checkpoint, Source};
use std::path::{Path, PathBuf};

/// A model that tells speech from what is none.
pub trait Detector {
    /// The rate of recordings, in hertz.
    fn sample_rate(&self) -> u32;

    /// Samples from one probability to the next.
    fn step(&self) -> usize;

    /// Samples that a probability is of, where it is of a window that others overlap; else those of a step.
    fn window(&self) -> usize {
        self.step()
    }

    /// Runs on another device from now on.
    fn set_device(&self, device: Device);

    /// Hears a recording from its beginning.
    ///
    /// # Errors
    /// A model that cannot be run.
    fn listen(&self) -> Result<Box<dyn Listener + '_>, VoiceError>;

    /// The probabilities of a whole recording.
    ///
    /// # Errors
    /// A model that cannot be run.
    fn probabilities(&self, recording: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let mut listener = self.listen()?;
        let mut all = listener.push(recording)?;
        all.extend(listener.finish()?);
        Ok(all)
    }
}

/// One recording that is being heard.
pub trait Listener {
    /// The probabilities of all steps that are complete with these samples.
    ///
    /// # Errors
    /// A model that cannot be run.
    fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, VoiceError>;

    /// Those of what is left at the recording's end, filled up with silence.
    ///
    /// # Errors
    /// A model that cannot be run.
    fn finish(&mut self) -> Result<Vec<f32>, VoiceError>;
}

/// Opens a detector: a file or a folder of Silero's weights, or a `.nemo` archive of a MarbleNet.
///
/// # Errors
/// Nothing there, a model of another kind, tensors that do not fit.
pub fn open(place: &Path) -> Result<Box<dyn Detector>, VoiceError> {
    if nemo::is_nemo(place) {
        let archive = nemo::open(place)?;
        return Ok(match windows::WindowedMarbleNet::is_one(&archive.config) {
            true => Box::new(windows::WindowedMarbleNet::open(archive)?),
            false => Box::new(marblenet::MarbleNet::open(archive)?),
        });
    }
    let tensors = silero_weights(place)?;
    if tensors.info("stft_conv.weight").is_none() {
        let found = format!("it has tensors such as `{}`", tensors.names().first().copied().unwrap_or("none"));
        let wanted = "voice activity detector (Silero's, or a MarbleNet of NeMo's)";
        return Err(VoiceError::Kind { place: place.display().to_string(), wanted, found });
    }
    Ok(Box::new(silero::Silero::load(&*tensors)?))
}

fn silero_weights(place: &Path) -> Result<Box<dyn Source>, VoiceError> {
    let known = ["silero_vad_16k.safetensors", "silero_vad_16k_from_onnx.safetensors"];
    let inside = known.iter().map(|name| place.join(name)).find(|path| path.is_file());
    let path: PathBuf = inside.unwrap_or_else(|| place.to_path_buf());
    Ok(Box::new(Checkpoint::open(path).map_err(crate::import::ImportError::from)?))
}
