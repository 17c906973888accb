//! What a recipe says between samples and encoder: features, masks over them, a length.
//!
//! NeMo's sections `preprocessor`, `spec_augment` and `crop_or_pad_augment`, as one function of the graph.

use super::TrainingError;
use crate::asr::conv::{AnyConv, Counts, FeaturesOf};
use crate::audio::augment::SpecAugment;
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::audio::{Frames, Hop};
use crate::llm::config::Config;
use crate::recipe::{Keys, RecipeError};
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{DType, Dim, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind, UnaryKind};
use mobilis_runtime::ops::random::{Distribution, random};
use mobilis_runtime::ops::{gather, leaf, reduce};
use mobilis_runtime::prelude::*;
use serde_json::{Map, Value, json};

/// The way from samples to an encoder's input.
pub struct Front {
    features: Features,
    /// What is hidden in training.
    masks: Option<SpecAugment>,
    /// As many frames, whatever the recording has.
    frames: Option<u64>,
}

impl Front {
    /// Reads the three sections; `rate` is the model's.
    ///
    /// # Errors
    /// Settings that are not known or contradict themselves.
    pub fn new(sections: &Value, rate: u32) -> Result<Front, TrainingError> {
        let mut preprocessor = match &sections["preprocessor"] {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        preprocessor
            .entry("_target_")
            .or_insert("nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor".into());
        preprocessor.entry("sample_rate").or_insert(rate.into());
        let config = Config::new("`model.preprocessor`", preprocessor.into());
        let version = sections["nemo_version"].as_str().map_or(Version::NEW, |text| Version::parse(Some(text)));
        let features = Features::nemo(&config, version).map_err(TrainingError::model)?;
        if features.sample_rate() != rate {
            let words = format!("is {}, and `model.sample_rate` is {rate}", features.sample_rate());
            return Err(RecipeError::new("model.preprocessor.sample_rate", words).into());
        }
        let mut keys = Keys::new(json!({ "model": {
            "crop_or_pad_augment": sections["crop_or_pad_augment"],
        } }))?;
        let frames = keys.section("model", |keys| {
            keys.optional("crop_or_pad_augment", |keys| {
                keys.get::<String>("_target_")?;
                keys.required::<u64>("audio_length")
            })
        })?;
        if frames.is_some_and(|n| n == 0 || n > 1 << 20) {
            return Err(
                RecipeError::new("model.crop_or_pad_augment.audio_length", "must be 1 to 1048576 frames").into()
            );
        }
        let masks = match &sections["spec_augment"] {
            Value::Null => None,
            section => {
                let config = Config::new("`model.spec_augment`", section.clone());
                Some(SpecAugment::from_config(&config).map_err(TrainingError::model)?)
            }
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

    /// The version of NeMo whose features these are.
    pub fn nemo_version(&self) -> &'static str {
        "2.5.0"
    }

    /// Features of a batch, and how many frames count.
    pub fn trace(&self, sound: Sound, samples: SampleCounts) -> (FeaturesOf<AnyConv>, Counts<Frames>) {
        let (features, counted) = self.features.forward(sound, samples);
        let (features, counted): (FeaturesOf<AnyConv>, Counts<Frames>) = match self.frames {
            None => (features.assume(), counted),
            Some(frames) => {
                let (x, counted) = cropped(features.raw(), counted.raw(), frames);
                (Tensor::from_raw(x), Tensor::from_raw(counted))
            }
        };
        match &self.masks {
            None => (features, counted),
            Some(masks) => (masks.forward(features, counted), counted),
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

/// `[batch, frames, width]` cut or padded to so many frames for each recording alone: short ones stand in the
/// middle of zeros; of long ones the middle is taken, in training any part. NeMo:
/// `CropOrPadSpectrogramAugmentation`, where what stands around a recording depends on its batch.
fn cropped(x: Handle, counted: Handle, frames: u64) -> (Handle, Handle) {
    let ty = type_of(x);
    let dim = Dim { axis: Frames::dim().axis, ..Dim::fixed(frames) };
    let short = vec![ty.dims[0].clone(), dim.clone()];
    let number = |v: f64| leaf::fill(v, TensorType::new(vec![], DType::I32));
    let real = |h: Handle| ew::cast(h, DType::F32);
    let more = real(ew::sub(counted, number(frames as f64)));
    let half = ew::scale(more, 0.5);
    // Towards zero: a recording with an odd number of frames too few has one zero more behind it.
    let towards = |h: Handle| {
        let sign =
            ew::select(ew::compare(CompareKind::Lt, h, leaf::scalar(0.0)), leaf::scalar(-1.0), leaf::scalar(1.0));
        ew::mul(ew::unary(UnaryKind::Floor, ew::mul(h, sign)), sign)
    };
    let mut start = towards(half);
    if trace::mode() == Mode::Train {
        let dice = random(Distribution::Uniform, &TensorType::new(vec![ty.dims[0].clone()], DType::F32));
        let any = ew::unary(UnaryKind::Floor, ew::mul(dice, ew::add(more, leaf::scalar(1.0))));
        start = ew::select(ew::compare(CompareKind::Gt, more, leaf::scalar(0.0)), any, start);
    }
    let start = reduce::restore(ew::cast(start, DType::I32), &short, &[1]);
    let places = ew::add(leaf::iota(1, &TensorType::new(short.clone(), DType::I32)), start);
    let ends = reduce::restore(counted, &short, &[1]);
    let inside = ew::binary(
        BinaryKind::And,
        ew::compare(CompareKind::Ge, places, number(0.0)),
        ew::compare(CompareKind::Lt, places, ends),
    );
    // What is not inside is taken from anywhere, and then not.
    let safe = ew::select(inside, places, number(0.0));
    let dims = vec![ty.dims[0].clone(), dim, ty.dims[2].clone()];
    let wide = |h: Handle| reduce::restore(h, &dims, &[2]);
    let picked = gather::gather(x, wide(safe), 1);
    let y = ew::select(wide(inside), picked, leaf::scalar(0.0));
    (y, leaf::fill(frames as f64, type_of(counted)))
}
