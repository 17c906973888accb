//! Augmentations from configurations: NeMo's `augmentor`, a map from names to settings.
//!
//! ```yaml
//! augmentor:
//!   shift: {prob: 1.0, min_shift_ms: -5.0, max_shift_ms: 5.0}
//!   white_noise: {prob: 1.0, min_level: -90, max_level: -46}
//! ```

use super::Augmentor;
use super::g711::Law;
use super::sounds::Sounds;
use super::steps::{Impulse, Noise, Rates, Step};
use crate::asr::data::DataError;
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::suggest::did_you_mean;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why there is no augmentation.
#[derive(Debug, thiserror::Error)]
pub enum AugmentError {
    /// A setting that is missing, wrong or unknown.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A list of recordings that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A list without recordings.
    #[error("`{}` lists no recordings", .path.display())]
    Empty {
        /// The list.
        path: PathBuf,
    },
}

/// Every key is known, or an error.
pub(super) fn strict(config: &Config, known: &[&str]) -> Result<(), ConfigError> {
    let keys = config.value().as_object().into_iter().flat_map(|o| o.keys());
    for key in keys {
        if !known.contains(&key.as_str()) {
            return Err(ConfigError::Wrong {
                place: config.place().to_string(),
                key: key.clone(),
                found: format!("not a setting here{}", did_you_mean(key, known)),
                expected: format!("one of {}", known.join(", ")),
            });
        }
    }
    Ok(())
}

const NAMES: [&str; 12] = [
    "speed",
    "time_stretch",
    "gain",
    "silence",
    "impulse",
    "shift",
    "noise",
    "noise_norm",
    "white_noise",
    "rir_noise_aug",
    "transcode_aug",
    "random_segment",
];

/// Where recordings are listed, and the archives that they may be in.
const LISTED: [&str; 2] = ["manifest_path", "audio_tar_filepaths"];
/// What says so. Recordings are drawn from the whole list at their own rates, so that of the reading's order and
/// of rates has no effect.
const SOURCE: [&str; 5] = [LISTED[0], LISTED[1], "shuffle_n", "shard_strategy", "orig_sr"];

impl Augmentor {
    /// From an `augmentor` section; lists of recordings lie relative to `folder`.
    ///
    /// # Errors
    /// Unknown names and settings, values out of range, lists that cannot be read.
    pub fn from_config(config: &Config, folder: &Path, rate: u32, seed: u64) -> Result<Self, AugmentError> {
        strict(config, &NAMES)?;
        let mut steps = vec![];
        for name in config.value().as_object().into_iter().flat_map(|o| o.keys()) {
            let inner = config.inner(name).ok_or_else(|| config.wrong(name, "settings: {prob: .., ..}"))?;
            let read = Reading { config: &inner, folder };
            let probability = read.within("prob", 1.0, 0.0, 1.0)?;
            if let Some(step) = read.step(name)? {
                steps.push((probability, step));
            }
        }
        Ok(Self::new(rate, seed, steps))
    }
}

struct Reading<'a> {
    config: &'a Config,
    folder: &'a Path,
}

impl Reading<'_> {
    fn only(&self, keys: &[&str]) -> Result<(), ConfigError> {
        strict(self.config, &[&["prob", "rng", "_target_"], keys].concat())
    }

    fn within(&self, key: &str, default: f64, low: f64, high: f64) -> Result<f64, ConfigError> {
        match self.config.number(key, default)? {
            v if (low..=high).contains(&v) => Ok(v),
            _ => Err(self.config.wrong(key, format!("a number of {low} to {high}"))),
        }
    }

    /// Two ends of a range.
    fn range(&self, keys: [&str; 2], defaults: [f64; 2], [low, high]: [f64; 2]) -> Result<[f64; 2], ConfigError> {
        let from = self.within(keys[0], defaults[0], low, high)?;
        let to = self.within(keys[1], defaults[1].max(from), low, high)?;
        if from > to {
            return Err(self.config.wrong(keys[1], format!("at least {}", keys[0])));
        }
        Ok([from, to])
    }

    fn rates(&self) -> Result<Rates, ConfigError> {
        let [low, high] = self.range(["min_speed_rate", "max_speed_rate"], [0.9, 1.1], [0.1, 10.0])?;
        let count = match self.config.number("num_rates", 5.0)? {
            n if n < 0.0 => None,
            n if (1.0..=1000.0).contains(&n) => Some(n as usize),
            _ => return Err(self.config.wrong("num_rates", "1 to 1000, or -1 for any")),
        };
        Ok(Rates { low, high, count })
    }

    /// The recordings of a manifest, which are in tar archives where a second key names some.
    fn sounds(&self, [manifest, archives]: [&str; 2]) -> Result<Sounds, AugmentError> {
        let path = self.config.word(manifest)?.ok_or_else(|| self.config.missing(manifest))?;
        match self.config.get(archives) {
            None => Ok(Sounds::open(&self.folder.join(path))?),
            Some(Value::String(pattern)) => Sounds::tarred(self.folder, path, &[pattern]),
            Some(_) => Sounds::tarred(self.folder, path, &self.config.words(archives)?.unwrap_or_default()),
        }
    }

    fn noise(&self) -> Result<Noise, AugmentError> {
        let [low, high] = self.range(["min_snr_db", "max_snr_db"], [10.0, 50.0], [-200.0, 200.0])?;
        let max_gain_db = self.within("max_gain_db", 300.0, -300.0, 300.0)?;
        Ok(Noise { sounds: self.sounds(LISTED)?, min_snr_db: low, max_snr_db: high, max_gain_db })
    }

    fn impulse(&self, list: [&str; 2]) -> Result<Impulse, AugmentError> {
        Ok(Impulse {
            sounds: self.sounds(list)?,
            normalize: self.config.flag("normalize_impulse", false)?,
            shift: self.config.flag("shift_impulse", false)?,
        })
    }

    /// A number for each of several lists: a list of numbers, one for all, or none.
    fn each(&self, key: &str, count: usize, default: f64) -> Result<Vec<f64>, ConfigError> {
        if self.config.get(key).is_some_and(|v| v.is_array()) {
            let values = self.config.numbers(key)?.unwrap_or_default();
            if values.len() != count {
                return Err(self.config.wrong(key, format!("{count} numbers, one for each list")));
            }
            return Ok(values);
        }
        Ok(vec![self.config.number(key, default)?; count])
    }

    fn room_and_noises(&self) -> Result<Step, AugmentError> {
        self.only(&[
            "rir_manifest_path",
            "rir_tar_filepaths",
            "rir_shuffle_n",
            "rir_prob",
            "noise_manifest_paths",
            "noise_tar_filepaths",
            "noise_shuffle_n",
            "noise_prob",
            "min_snr_db",
            "max_snr_db",
            "max_gain_db",
            "bg_noise_manifest_paths",
            "bg_noise_tar_filepaths",
            "bg_noise_shuffle_n",
            "bg_noise_prob",
            "bg_min_snr_db",
            "bg_max_snr_db",
            "bg_max_gain_db",
            "normalize_impulse",
            "shift_impulse",
        ])?;
        let room = match self.config.get("rir_manifest_path") {
            None => None,
            Some(_) => Some((
                self.within("rir_prob", 0.5, 0.0, 1.0)?,
                self.impulse(["rir_manifest_path", "rir_tar_filepaths"])?,
            )),
        };
        let mut noises = vec![];
        for (prefix, lists, archives) in [
            ("", "noise_manifest_paths", "noise_tar_filepaths"),
            ("bg_", "bg_noise_manifest_paths", "bg_noise_tar_filepaths"),
        ] {
            let paths = self.config.words(lists)?.unwrap_or_default();
            let archived = self.config.words(archives)?;
            if archived.as_ref().is_some_and(|a| a.len() != paths.len()) {
                return Err(self.config.wrong(archives, format!("{} texts, one for each list", paths.len())).into());
            }
            let of = |key: &str, default| self.each(&format!("{prefix}{key}"), paths.len(), default);
            let (low, high) = (of("min_snr_db", 10.0)?, of("max_snr_db", 50.0)?);
            let (most, probability) = (of("max_gain_db", 300.0)?, of("noise_prob", 1.0)?);
            for (i, path) in paths.iter().enumerate() {
                let noise = Noise {
                    sounds: match &archived {
                        Some(archived) => Sounds::tarred(self.folder, path, &archived[i..=i])?,
                        None => Sounds::open(&self.folder.join(path))?,
                    },
                    min_snr_db: low[i],
                    max_snr_db: high[i],
                    max_gain_db: most[i],
                };
                noises.push((probability[i], noise));
            }
        }
        Ok(Step::RirNoise { room, noises })
    }

    /// The step of a name; none where it could never change anything.
    fn step(&self, name: &str) -> Result<Option<Step>, AugmentError> {
        let seconds = [0.0, 3600.0];
        Ok(Some(match name {
            "speed" => {
                self.only(&["sr", "resample_type", "min_speed_rate", "max_speed_rate", "num_rates"])?;
                Step::Speed(self.rates()?)
            }
            "time_stretch" => {
                self.only(&["min_speed_rate", "max_speed_rate", "num_rates", "n_fft"])?;
                let n_fft = self.config.count("n_fft")?.unwrap_or(512);
                if !n_fft.is_power_of_two() || !(16..=65_536).contains(&n_fft) {
                    return Err(self.config.wrong("n_fft", "a power of two from 16 to 65536").into());
                }
                Step::TimeStretch { rates: self.rates()?, n_fft }
            }
            "gain" => {
                self.only(&["min_gain_dbfs", "max_gain_dbfs"])?;
                let [low, high] = self.range(["min_gain_dbfs", "max_gain_dbfs"], [-10.0, 10.0], [-300.0, 300.0])?;
                Step::Gain { low, high }
            }
            "silence" => {
                const KEYS: [&str; 5] = [
                    "min_start_silence_secs",
                    "max_start_silence_secs",
                    "min_end_silence_secs",
                    "max_end_silence_secs",
                    "value",
                ];
                self.only(&KEYS)?;
                Step::Silence {
                    start: self.range([KEYS[0], KEYS[1]], [0.0, 0.0], seconds)?,
                    end: self.range([KEYS[2], KEYS[3]], [0.0, 0.0], seconds)?,
                    value: self.within("value", 0.0, -1.0, 1.0)? as f32,
                }
            }
            "impulse" => {
                self.only(&[&SOURCE[..], &["normalize_impulse", "shift_impulse"]].concat())?;
                Step::Impulse(self.impulse(LISTED)?)
            }
            "shift" => {
                self.only(&["min_shift_ms", "max_shift_ms"])?;
                let [low, high] = self.range(["min_shift_ms", "max_shift_ms"], [-5.0, 5.0], [-1e6, 1e6])?;
                Step::Shift { low, high }
            }
            "noise" => {
                self.only(&[&SOURCE[..], &["min_snr_db", "max_snr_db", "max_gain_db"]].concat())?;
                Step::Noise(self.noise()?)
            }
            "noise_norm" => {
                self.only(&[&SOURCE[..], &["min_snr_db", "max_snr_db", "max_gain_db", "norm_to_db"]].concat())?;
                let norm_to_db = self.config.number_if("norm_to_db")?;
                Step::NoiseNorm { noise: self.noise()?, norm_to_db }
            }
            "white_noise" => {
                self.only(&["min_level", "max_level"])?;
                let [low, high] = self.range(["min_level", "max_level"], [-90.0, -46.0], [-300.0, 100.0])?;
                Step::WhiteNoise { low, high }
            }
            "rir_noise_aug" => self.room_and_noises()?,
            "transcode_aug" => {
                self.only(&["codecs"])?;
                let mut laws = vec![];
                for codec in self.config.words("codecs")?.unwrap_or_else(|| vec!["g711"]) {
                    match codec {
                        "g711" => laws.extend([Law::Mu, Law::A]),
                        "g711-mulaw" | "pcm_mulaw" => laws.push(Law::Mu),
                        "g711-alaw" | "pcm_alaw" => laws.push(Law::A),
                        _ => return Err(self.config.wrong("codecs", "g711, g711-mulaw or g711-alaw").into()),
                    }
                }
                if laws.is_empty() {
                    return Ok(None);
                }
                Step::Transcode(laws)
            }
            "random_segment" => {
                self.only(&["duration_sec", "pad_to_duration"])?;
                let duration = self.within("duration_sec", 32.0, 1e-3, 36_000.0)?;
                Step::RandomSegment { duration, pad: self.config.flag("pad_to_duration", false)? }
            }
            _ => return Ok(None),
        }))
    }
}
