//! Features by themselves: NeMo's preprocessor in several settings, on the same two recordings.
//!
//! The folder's `meta.json` has the settings (`configs`) and the version of NeMo; `NAME.features`
//! `[batch, features, frames]`, `NAME.length`, `NAME.fb` and `NAME.window` are what they gave.

use super::{ABSOLUTE, Check, Golden, OpenError, VerifyError};
use crate::audio::features::{Extractor, FeatureError, Features, Version};
use crate::llm::config::Config;
use mobilis_runtime::Device;

/// The suffix of the names.
pub const SUFFIX: &str = ".features";
/// The largest difference that passes: single precision against double differs by 1.5e-4 where a
/// silent bin's logarithm is scaled by its small deviation.
const FEATURES: f64 = 5e-4;

/// Everything that a golden file of features expects. `settings` is the folder's `meta.json`.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn checks(settings: &Config, device: Device, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let missing = |key: &str| OpenError::from(settings.missing(key));
    let configs = settings.inner("configs").ok_or_else(|| missing("configs"))?;
    let version = Version::parse(settings.word("nemo").map_err(OpenError::from)?);
    let (sizes, samples) = golden.reals("in.audio")?;
    let (_, lengths) = golden.wholes("in.length")?;
    let samples: Vec<f32> = samples.into_iter().map(|v| v as f32).collect();
    let row = sizes.last().copied().unwrap_or(0).max(1);
    let of = |(row, length): (&'_ [f32], &i32)| row[..(*length).max(0) as usize].to_vec();
    let recordings: Vec<Vec<f32>> = samples.chunks_exact(row).zip(&lengths).map(of).collect();
    let recordings: Vec<&[f32]> = recordings.iter().map(Vec::as_slice).collect();

    let mut checks = vec![];
    for name in golden.names_ending(SUFFIX).iter().filter_map(|n| n.strip_suffix(SUFFIX)) {
        let config = configs.inner(name).ok_or_else(|| OpenError::from(configs.missing(name)))?;
        let features = Features::nemo(&config, version)?;
        if let Some(settings) = features.settings() {
            let bins = settings.n_fft / 2 + 1;
            let filters = settings.filters();
            let found = filters.iter().map(|v| f64::from(*v));
            checks.push(golden.compare_within(&format!("{name}.fb"), &[settings.mels, bins], found, |l| 1e-6 * l)?);
            let window = settings.window();
            let found = window.iter().map(|v| f64::from(*v));
            checks.push(golden.compare_within(&format!("{name}.window"), &[window.len()], found, |_| ABSOLUTE)?);
        }
        let found = Extractor::new(features, device)?.run(&recordings)?;
        let counted: Vec<i64> = found.counted.iter().map(|n| *n as i64).collect();
        checks.push(golden.compare_ids(&format!("{name}.length"), &counted)?);
        // Theirs may have fewer frames, as ours beyond the last that counts are all alike.
        let frames = golden.sizes(&format!("{name}{SUFFIX}"))?.last().copied().unwrap_or(0).min(found.frames);
        let mut values = Vec::with_capacity(found.values.len());
        for recording in 0..recordings.len() {
            for m in 0..found.width {
                let at = |t: usize| (recording * found.frames + t) * found.width + m;
                values.extend((0..frames).map(|t| f64::from(found.values[at(t)])));
            }
        }
        let sizes = [recordings.len(), found.width, frames];
        checks.push(golden.compare_within(&format!("{name}{SUFFIX}"), &sizes, values.into_iter(), |_| FEATURES)?);
    }
    Ok(checks)
}

impl From<FeatureError> for VerifyError {
    fn from(error: FeatureError) -> Self {
        match error {
            FeatureError::Config(e) => OpenError::from(e).into(),
            FeatureError::Program(e) => e.into(),
            other => VerifyError::Features(Box::new(other)),
        }
    }
}
