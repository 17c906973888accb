//! NeMo's speaker models: `EncDecSpeakerLabelModel` with the body of TitaNet (Koluguri et al. 2022,
//! <https://arxiv.org/abs/2110.04410>) or ECAPA.
//!
//! Features in the model's own graph, a body, attentive statistics, a vector. A recording of more than five minutes is
//! heard in parts, whose vectors are joined by their mean.

use super::super::conv::{AnyConv, ConvAxes, ConvEncoder, ConvSettings, Counts, FeaturesOf, Steps, Stream};
use super::super::voice::VoiceError;
use super::ecapa::{Ecapa, EcapaSettings};
use super::pooling::{Embedding, SpeakerDecoder};
use super::{Embedder, normalized};
use crate::audio::features::{Features, SampleCounts, Sound, Version};
use crate::audio::{Batch, Frames};
use crate::import::nemo::Archive;
use crate::llm::config::Config;
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::prelude::*;
use serde_json::Value;
use std::cell::OnceCell;

type A = AnyConv;
/// Seconds that are heard at once.
const LONGEST: usize = 300;

/// What makes a stream of features.
pub enum Body {
    /// TitaNet's, SpeakerNet's.
    Conv(ConvEncoder<A>),
    /// ECAPA's.
    Ecapa(Ecapa<A>),
}

impl Body {
    fn forward(&self, x: FeaturesOf<A>, lengths: Counts<Frames>) -> (Stream<A>, Counts<Steps>) {
        match self {
            Body::Conv(body) => body.forward(x, lengths),
            Body::Ecapa(body) => body.forward(x, lengths),
        }
    }
}

impl Module for Body {
    fn kind(&self) -> &'static str {
        match self {
            Body::Conv(body) => body.kind(),
            Body::Ecapa(body) => body.kind(),
        }
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        match self {
            Body::Conv(body) => body.visit(visitor),
            Body::Ecapa(body) => body.visit(visitor),
        }
    }
}

/// Features, body and decoder.
#[neural_module(no_default)]
pub struct SpeakerNetwork {
    /// What the body sees.
    #[name("preprocessor.featurizer")]
    pub features: Features,
    /// The body.
    pub encoder: Body,
    /// Vectors, and what is said of speakers.
    pub decoder: SpeakerDecoder<A>,
}

#[neural_module]
impl SpeakerNetwork {
    /// Samples to vectors, and what is said of the training's speakers.
    #[allow(clippy::type_complexity)]
    pub fn forward(
        &self,
        sound: Sound,
        samples: SampleCounts,
    ) -> (Tensor<(Batch, Embedding)>, Tensor<(Batch, <A as ConvAxes>::Classes), Logits>) {
        let (x, lengths) = self.features.forward::<<A as ConvAxes>::Features>(sound, samples);
        let (x, lengths) = self.encoder.forward(Tensor::from_raw(x.raw()), lengths);
        self.decoder.forward(x, lengths)
    }
}

type Hear = Program<(Sound, SampleCounts), Tensor<(Batch, Embedding)>>;

/// A speaker model of NeMo's.
pub struct SpeakerModel {
    model: Model<SpeakerNetwork>,
    program: OnceCell<Hear>,
}

impl SpeakerModel {
    /// The model of an archive.
    ///
    /// # Errors
    /// Another kind of model; settings that make no sense, tensors that do not fit.
    pub fn open(archive: Archive) -> Result<SpeakerModel, VoiceError> {
        let place = archive.path.display().to_string();
        let target = crate::import::nemo::target(&archive.config).unwrap_or("").to_string();
        if !target.ends_with("EncDecSpeakerLabelModel") {
            let found = format!("its `target` is `{target}`");
            return Err(VoiceError::Kind { place, wanted: "speaker model", found });
        }
        let config = Config::new(place, archive.config);
        let (network, sizes) = network(&config)?;
        let options = LoadOptions::new().sizes(sizes).passing_over("preprocessor.**");
        let model = options.load(network, &*archive.tensors)?;
        Ok(SpeakerModel { model, program: OnceCell::new() })
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    fn program(&self) -> Result<&Hear, VoiceError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let program = self.model.compile(|m, (sound, samples)| m.forward(sound, samples).0)?.alike();
        Ok(self.program.get_or_init(|| program))
    }
}

/// The network that a configuration describes, and the sizes of its axes.
pub(super) fn network(config: &Config) -> Result<(SpeakerNetwork, Sizes), VoiceError> {
    let part = |key: &str| config.inner(key).ok_or_else(|| config.missing(key));
    let features = Features::nemo(&part("preprocessor")?, Version::parse(config.word("nemo_version")?))?;
    let (encoder, decoder) = (part("encoder")?, part("decoder")?);
    let (body, sizes) = if encoder.word("_target_")?.is_some_and(|t| t.ends_with("ECAPAEncoder")) {
        let settings = EcapaSettings::nemo(&encoder)?;
        let padding = features.settings().map_or(1, |s| s.pad_to as u64);
        (Body::Ecapa(Ecapa::new(&settings).padded_to(padding)), Ecapa::<A>::sizes(&settings))
    } else {
        let settings = ConvSettings::nemo(&encoder)?;
        (Body::Conv(ConvEncoder::new(&settings)), ConvEncoder::<A>::sizes(&settings))
    };
    if decoder.word("pool_mode")?.unwrap_or("xvector") != "attention" {
        return Err(decoder.wrong("pool_mode", "attention, as TitaNet and ECAPA have it").into());
    }
    let wrong = || decoder.wrong("emb_sizes", "a number, or a list of one or two, of 1 to 65536");
    let widths: Vec<u64> = match decoder.get("emb_sizes") {
        None => vec![256],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_u64).collect(),
        Some(one) => one.as_u64().into_iter().collect(),
    };
    let fits = (1..=2).contains(&widths.len()) && widths.iter().all(|w| (1..=65536).contains(w));
    let embedding = widths.last().copied().filter(|_| fits).ok_or_else(wrong)?;
    let sizes = sizes
        .with::<<A as ConvAxes>::Classes>(decoder.size("num_classes")?)
        .with::<Embedding>(embedding as usize)
        .with::<crate::audio::Hop>(features.hop());
    let decoder = SpeakerDecoder::new(&widths, decoder.flag("angular", false)?);
    Ok((SpeakerNetwork { features, encoder: body, decoder }, sizes))
}

impl Embedder for SpeakerModel {
    fn sample_rate(&self) -> u32 {
        self.model.features.sample_rate()
    }

    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn embed(&self, recording: &[f32]) -> Result<Vec<f32>, VoiceError> {
        let features = &self.model.features;
        let least = features.hop();
        if recording.len() < least {
            return Err(VoiceError::Short { found: recording.len(), model: "the model", least });
        }
        let program = self.program()?;
        let mut sum: Vec<f64> = Vec::new();
        for part in recording.chunks(LONGEST * self.sample_rate() as usize).filter(|p| p.len() >= least) {
            let (sound, samples) = features.pack(&[part]);
            let vector = normalized(program.run((sound, samples))?.into_vec());
            sum.resize(vector.len(), 0.0);
            // A longer part weighs more.
            sum.iter_mut().zip(vector).for_each(|(s, v)| *s += f64::from(v) * part.len() as f64);
        }
        let all = recording.len() as f64;
        Ok(normalized(sum.into_iter().map(|v| (v / all) as f32).collect()))
    }
}
