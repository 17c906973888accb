//! Features from configurations: the `preprocessor` of a NeMo model, the `preprocessor_config.json`
//! of a Hugging Face folder. Unknown settings are errors.

use super::window::Shape;
use super::{Features, Log, Normalize, Settings, Version};
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::suggest::did_you_mean;

/// Why there are no features.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// A setting that is missing, wrong or unknown.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Settings that contradict themselves.
    #[error("features cannot have `{setting}` = {fault}")]
    Settings {
        /// The setting, as the configuration calls it.
        setting: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// Another class of features.
    #[error("{place}: features of class `{class}` are not known: {known} are")]
    Class {
        /// The file.
        place: String,
        /// What it says.
        class: String,
        /// What there is.
        known: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A module that cannot be made.
    #[error(transparent)]
    Model(#[from] mobilis_runtime::ModelError),
    /// A program that cannot be made or run.
    #[error(transparent)]
    Program(#[from] mobilis_runtime::ProgramError),
}

/// All of `AudioToMelSpectrogramPreprocessor` and `FilterbankFeatures`; of the last line nothing depends here.
const MEL: &[&str] = &[
    "sample_rate",
    "window_size",
    "window_stride",
    "n_window_size",
    "n_window_stride",
    "window",
    "normalize",
    "n_fft",
    "preemph",
    "features",
    "nfilt",
    "lowfreq",
    "highfreq",
    "log",
    "log_zero_guard_type",
    "log_zero_guard_value",
    "dither",
    "pad_to",
    "frame_splicing",
    "exact_pad",
    "stft_exact_pad",
    "pad_value",
    "mag_power",
    "mel_norm",
    "nb_augmentation_prob",
    "nb_max_freq",
    "_target_",
    "cls",
    "params",
    "use_torchaudio",
    "use_grads",
    "rng",
    "stft_conv",
    "max_duration",
    "feat_type",
    "target",
];

/// All of `AudioToMFCCPreprocessor`.
const MFCC: &[&str] = &[
    "sample_rate",
    "window_size",
    "window_stride",
    "n_window_size",
    "n_window_stride",
    "window",
    "n_fft",
    "lowfreq",
    "highfreq",
    "n_mels",
    "n_mfcc",
    "dct_type",
    "norm",
    "log",
    "_target_",
    "cls",
    "params",
    "features",
];

const KNOWN: &str = "AudioToMelSpectrogramPreprocessor and AudioToMFCCPreprocessor of NeMo, Whisper's and Parakeet's feature extractors";

impl Features {
    /// The features that the `preprocessor` of a NeMo model describes; `version` is the model's
    /// `nemo_version`, on which they depend.
    ///
    /// # Errors
    /// Settings that are unknown, wrong, or contradict themselves.
    pub fn nemo(preprocessor: &Config, version: Version) -> Result<Self, FeatureError> {
        let class = preprocessor.word("_target_")?.or(preprocessor.word("cls")?).unwrap_or("");
        let settings = match class.rsplit('.').next().unwrap_or("") {
            "" | "AudioToMelSpectrogramPreprocessor" | "FilterbankFeatures" => mel(preprocessor, version)?,
            "AudioToMFCCPreprocessor" => mfcc(preprocessor)?,
            other => {
                let (place, class) = (preprocessor.place().to_string(), other.to_string());
                return Err(FeatureError::Class { place, class, known: KNOWN });
            }
        };
        Self::spectral(settings)
    }

    /// The features that a `preprocessor_config.json` describes.
    ///
    /// # Errors
    /// Settings that are wrong or contradict themselves, another class.
    pub fn hugging_face(config: &Config) -> Result<Self, FeatureError> {
        let class = config.word("feature_extractor_type")?.unwrap_or("");
        let bands = config.count("feature_size")?.unwrap_or(80);
        let n_fft = config.count("n_fft")?;
        let rate = config.count("sampling_rate")?.unwrap_or(16_000) as u32;
        let hop = config.count("hop_length")?.unwrap_or(160);
        Self::spectral(match class {
            "WhisperFeatureExtractor" => {
                let n_fft = n_fft.unwrap_or(400);
                let seconds = config.count("chunk_length")?.unwrap_or(30);
                Settings {
                    sample_rate: rate,
                    hop,
                    n_fft,
                    window_length: n_fft,
                    pad: n_fft / 2,
                    least_samples: config.count("n_samples")?.unwrap_or(seconds.saturating_mul(rate as usize)),
                    ..Settings::whisper(bands)
                }
            }
            "ParakeetFeatureExtractor" => {
                let n_fft = n_fft.unwrap_or(512);
                Settings {
                    sample_rate: rate,
                    hop,
                    n_fft,
                    window_length: config.count("win_length")?.unwrap_or(400),
                    pad: n_fft / 2,
                    preemphasis: Some(config.number("preemphasis", 0.97)?).filter(|v| *v != 0.0),
                    dither: 0.0,
                    mels: bands,
                    high: f64::from(rate) / 2.0,
                    pad_to: 1,
                    ..Settings::nemo(Version::NEW)
                }
            }
            other => {
                let (place, class) = (config.place().to_string(), other.to_string());
                return Err(FeatureError::Class { place, class, known: KNOWN });
            }
        })
    }
}

/// Every key is known, or an error.
fn strict(config: &Config, known: &[&str]) -> Result<(), ConfigError> {
    let keys = config.value().as_object().into_iter().flat_map(|o| o.keys());
    for key in keys {
        if !known.contains(&key.as_str()) {
            return Err(ConfigError::Wrong {
                place: config.place().to_string(),
                key: key.clone(),
                found: format!("not a setting of these features{}", did_you_mean(key, known)),
                expected: format!("one of {}", known.join(", ")),
            });
        }
    }
    Ok(())
}

/// Samples of a time that is given in samples (`n_window_size`) or in seconds (`window_size`).
fn samples(config: &Config, name: &str, rate: u32, default: f64) -> Result<usize, ConfigError> {
    if let Some(n) = config.count(&format!("n_{name}"))? {
        return Ok(n);
    }
    // As Python's `int(seconds * rate)`.
    Ok((config.number(name, default)? * f64::from(rate)).max(0.0) as usize)
}

fn window(config: &Config) -> Result<Shape, ConfigError> {
    Ok(match config.word("window")? {
        Some("hann") => Shape::Hann,
        Some("hamming") => Shape::Hamming,
        Some("blackman") => Shape::Blackman,
        Some("bartlett") => Shape::Bartlett,
        Some("none" | "ones") => Shape::Rectangular,
        None if config.value().get("window").is_some() => Shape::Rectangular,
        None => Shape::Hann,
        Some(_) => return Err(config.wrong("window", "hann, hamming, blackman, bartlett, none or ones")),
    })
}

/// The longest window that is believed.
const MOST_SAMPLES: usize = 1 << 24;

/// The rate and times that both classes have.
fn common(config: &Config, base: Settings) -> Result<Settings, FeatureError> {
    let sample_rate = match config.count("sample_rate")? {
        None => 16_000,
        Some(rate @ 1..=768_000) => rate as u32,
        Some(_) => return Err(config.wrong("sample_rate", "1 to 768000 hertz").into()),
    };
    let window_length = samples(config, "window_size", sample_rate, 0.02)?;
    if window_length > MOST_SAMPLES {
        return Err(config.wrong("window_size", format!("at most {MOST_SAMPLES} samples")).into());
    }
    let n_fft = config.count("n_fft")?.unwrap_or(window_length.max(1).next_power_of_two());
    Ok(Settings {
        sample_rate,
        window_length,
        hop: samples(config, "window_stride", sample_rate, 0.01)?,
        window: window(config)?,
        n_fft,
        pad: n_fft / 2,
        low: config.number("lowfreq", 0.0)?,
        high: config.number("highfreq", f64::from(sample_rate / 2))?,
        ..base
    })
}

fn mel(config: &Config, version: Version) -> Result<Settings, FeatureError> {
    strict(config, MEL)?;
    let mut s = common(config, Settings::nemo(version))?;
    s.mels = config.count("features")?.or(config.count("nfilt")?).unwrap_or(64);
    s.dither = config.number("dither", 1e-5)?;
    s.preemphasis = match config.value().get("preemph") {
        Some(v) if v.is_null() => None,
        _ => Some(config.number("preemph", 0.97)?),
    };
    s.power = config.number("mag_power", 2.0)?;
    s.pad_value = config.number("pad_value", 0.0)?;
    s.splicing = config.count("frame_splicing")?.unwrap_or(1).max(1);
    s.norm = match config.value().get("mel_norm") {
        None => true,
        Some(v) if v.is_null() => false,
        Some(v) if v.as_str() == Some("slaney") => true,
        Some(_) => return Err(config.wrong("mel_norm", "slaney or null").into()),
    };
    // "max" fills up to the longest recording of all, which is no number of frames.
    s.pad_to = match config.word("pad_to") {
        Ok(Some("max")) => 1,
        _ => config.count("pad_to")?.unwrap_or(16).max(1),
    };
    if s.pad_to > 1 << 16 {
        return Err(config.wrong("pad_to", "at most 65536 frames").into());
    }
    if config.flag("exact_pad", false)? || config.flag("stft_exact_pad", false)? {
        s.pad = s.n_fft.saturating_sub(s.hop) / 2;
    }
    let guard = match config.word("log_zero_guard_value") {
        Ok(Some("tiny")) => f64::from(f32::MIN_POSITIVE),
        Ok(Some("eps")) => f64::from(f32::EPSILON),
        Ok(Some(_)) => return Err(config.wrong("log_zero_guard_value", "a number, tiny or eps").into()),
        _ => config.number("log_zero_guard_value", 0.5f64.powi(24))?,
    };
    s.log = match (config.flag("log", true)?, config.word("log_zero_guard_type")?.unwrap_or("add")) {
        (false, _) => Log::None,
        (true, "add") => Log::Added(guard),
        (true, "clamp") => Log::Clamped(guard),
        (true, _) => return Err(config.wrong("log_zero_guard_type", "add or clamp").into()),
    };
    s.normalize = match config.get("normalize") {
        None if config.value().get("normalize").is_none() => Normalize::PerFeature,
        None => Normalize::None,
        Some(v) if v.as_str() == Some("per_feature") => Normalize::PerFeature,
        Some(v) if v.as_str() == Some("all_features") => Normalize::AllFeatures,
        // NeMo takes every other word for none.
        Some(v) if v.is_string() || v.as_bool() == Some(false) => Normalize::None,
        Some(_) => {
            let fixed = config.inner("normalize").ok_or_else(|| config.wrong("normalize", "a word or fixed values"))?;
            strict(&fixed, &["fixed_mean", "fixed_std"])?;
            let read = |key: &str| -> Result<Vec<f32>, ConfigError> {
                let values = fixed.numbers(key)?.ok_or_else(|| fixed.missing(key))?;
                if values.len() != s.mels {
                    return Err(fixed.wrong(key, format!("{} numbers", s.mels)));
                }
                Ok(values.into_iter().map(|v| v as f32).collect())
            };
            Normalize::Fixed { mean: read("fixed_mean")?, std: read("fixed_std")? }
        }
    };
    let probability = config.number("nb_augmentation_prob", 0.0)?;
    if !(0.0..=1.0).contains(&probability) {
        return Err(config.wrong("nb_augmentation_prob", "0 to 1").into());
    }
    s.narrow = (probability > 0.0).then_some((probability, config.number("nb_max_freq", 4000.0)?));
    Ok(s)
}

fn mfcc(config: &Config) -> Result<Settings, FeatureError> {
    strict(config, MFCC)?;
    let mut s = common(config, Settings::mfcc())?;
    s.mels = config.count("n_mels")?.unwrap_or(64);
    s.cepstra = Some(config.count("n_mfcc")?.unwrap_or(64));
    if config.count("dct_type")?.unwrap_or(2) != 2 {
        return Err(config.wrong("dct_type", "2").into());
    }
    if config.word("norm")?.unwrap_or("ortho") != "ortho" {
        return Err(config.wrong("norm", "ortho").into());
    }
    if !config.flag("log", true)? {
        s.log = Log::Decibels(80.0);
    }
    Ok(s)
}
