//! What a model's configuration says between samples and encoder: features, masks over them, a length.
//!
//! NeMo's sections `preprocessor`, `spec_augment` and `crop_or_pad_augment`, as one function of the graph.

use super::voice::VoiceError;
use crate::audio::augment::{SpecAugment, crop_or_pad_to};
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::audio::{Batch, Frames, Hop};
use crate::llm::config::Config;
use mobilis_runtime::graph::Dim;
use mobilis_runtime::prelude::*;
use serde_json::{Map, Value};

/// The most frames that recordings are cropped or padded to.
const MOST: usize = 1 << 20;

/// The way from samples to an encoder's input.
pub struct Front {
    features: Features,
    /// What is hidden in training.
    masks: Option<SpecAugment>,
    /// As many frames, whatever the recording has.
    frames: Option<usize>,
}

impl Front {
    /// What a model's configuration says: its sections `preprocessor`, `spec_augment`, `crop_or_pad_augment`, and the
    /// version of NeMo that it is of.
    ///
    /// # Errors
    /// Settings that are not known or contradict themselves.
    pub fn nemo(config: &Value) -> Result<Front, VoiceError> {
        let section = |key: &str| match &config[key] {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        let mut preprocessor = section("preprocessor");
        let target = "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor";
        preprocessor.entry("_target_").or_insert(target.into());
        let rate = config["sample_rate"].as_u64();
        preprocessor.entry("sample_rate").or_insert(rate.unwrap_or(16_000).into());
        let version = config["nemo_version"].as_str().map_or(Version::NEW, |text| Version::parse(Some(text)));
        let preprocessor = Config::new("`model.preprocessor`", preprocessor.into());
        let features = Features::nemo(&preprocessor, version)?;
        if let Some(rate) = rate.filter(|rate| *rate != u64::from(features.sample_rate())) {
            return Err(preprocessor.wrong("sample_rate", format!("`model.sample_rate`, {rate}")).into());
        }
        let crop = Config::new("`model.crop_or_pad_augment`", section("crop_or_pad_augment").into());
        let frames = match config["crop_or_pad_augment"].is_null() {
            true => None,
            false => Some(crop.size("audio_length")?),
        };
        if frames.is_some_and(|n| n > MOST) {
            return Err(crop.wrong("audio_length", format!("1 to {MOST} frames")).into());
        }
        let masks = match &config["spec_augment"] {
            Value::Null => None,
            section => Some(SpecAugment::from_config(&Config::new("`model.spec_augment`", section.clone()))?),
        };
        Ok(Front { features, masks, frames })
    }

    /// What computes the features, and packs recordings for that.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Features of a frame.
    pub fn width(&self) -> usize {
        self.features.width()
    }

    /// The sizes that the samples' axes need.
    pub fn sizes(&self, sizes: Sizes) -> Sizes {
        sizes.with::<Hop>(self.features.hop())
    }

    /// Features of a batch, and how many frames count. `M` has the size of [`width`](Self::width).
    pub fn trace<M: Axis>(
        &self,
        sound: Sound,
        samples: SampleCounts,
    ) -> (Tensor<(Batch, Frames, M)>, Tensor<(Batch,), Lengths<Frames>>) {
        let (features, mut counted) = self.features.forward::<M>(sound, samples);
        let mut x: Tensor<(Batch, Frames, M)> = Tensor::from_raw(features.raw());
        if let Some(frames) = self.frames {
            // Called frames still, but of a size that is known.
            let to = Dim { axis: Frames::dim().axis, ..Dim::fixed(frames as u64) };
            let (y, all) = crop_or_pad_to(x.raw(), counted.raw(), to);
            (x, counted) = (Tensor::from_raw(y), Tensor::from_raw(all));
        }
        match &self.masks {
            None => (x, counted),
            Some(masks) => (masks.forward(x, counted), counted),
        }
    }

    /// The constants that NeMo's module has among its weights: names, sizes, values.
    pub fn buffers(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let Some(settings) = self.features.settings() else { return vec![] };
        let (filters, window) = (settings.filters(), settings.window());
        let bins = settings.n_fft / 2 + 1;
        let named = |name: &str| format!("preprocessor.featurizer.{name}");
        match settings.cepstra {
            None => vec![
                (named("window"), vec![window.len()], window),
                (named("fb"), vec![1, settings.mels, bins], filters),
            ],
            // torchaudio's MFCC, whose matrices are the other way round.
            Some(kept) => {
                let mels = settings.mels;
                let cosines = crate::audio::features::cosines(kept, mels);
                let across = |rows: usize, cols: usize, value: &dyn Fn(usize, usize) -> f32| {
                    (0..rows).flat_map(|r| (0..cols).map(move |c| value(r, c))).collect::<Vec<f32>>()
                };
                let dct = across(mels, kept, &|m, k| cosines[k * mels + m] as f32);
                let bank = across(bins, mels, &|b, m| filters[m * bins + b]);
                vec![
                    (named("dct_mat"), vec![mels, kept], dct),
                    (named("MelSpectrogram.spectrogram.window"), vec![window.len()], window),
                    (named("MelSpectrogram.mel_scale.fb"), vec![bins, mels], bank),
                ]
            }
        }
    }
}
