//! Wav2Vec 2.0 with a CTC head: from samples to letters, without a spectrogram.
//!
//! Baevski et al. 2020 (<https://arxiv.org/abs/2006.11477>), as Hugging Face's `modeling_wav2vec2.py`, whose
//! parameter names are kept. Strided convolutions make a frame of every 20 ms; a wide convolution tells the
//! frames apart by place; a transformer reads them. There are two variants: the first models normalise
//! channels of the first convolution over the whole recording (`feat_extract_norm: group`) and norm after
//! each addition, and hear padding, so that recordings of different lengths cannot share a batch; the large
//! ones (`layer`, `do_stable_layer_norm`) norm before, and see only what counts.
//!
//! Widths come from lists in the configuration, so streams are untyped inside (see
//! [`mobilis_runtime::nn::listed`]): `[batch, channels, time]` in the convolutions, `[batch, time, width]`
//! behind them.

use super::decode::{Emissions, ctc};
use super::{AsrError, Recognizer, Segment, Transcript, Word};
use crate::audio::features::{SampleCounts, normalized};
use crate::audio::{Batch, Samples};
use crate::import::Pretrained;
use crate::llm::config::{Config, ConfigError};
use crate::llm::family::{OpenError, Values};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::module::param::ListedParam;
use mobilis_runtime::nn::Activation;
use mobilis_runtime::nn::listed::{Conv1d, Linear, Steps};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::ops::conv::{Geometry, conv};
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind};
use mobilis_runtime::ops::norm::{Kind, group_norm, norm};
use mobilis_runtime::ops::{leaf, movement, reduce};
use mobilis_runtime::prelude::*;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

axes! {
    /// Frames behind the convolutions.
    pub Steps20;
    /// Heads of attention.
    Heads;
    /// Features of a head.
    HeadDim;
    /// Letters.
    Letters;
    /// The last axis of a noted stream.
    Width;
}

/// A norm over the last dimension.
#[neural_module(no_default)]
pub struct Norm {
    /// `[width]`
    pub weight: ListedParam,
    /// `[width]`
    pub bias: ListedParam,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm {
    fn new(width: &Dim, eps: f64) -> Norm {
        let dims = std::slice::from_ref(width);
        Norm { weight: ListedParam::new(Init::Ones, dims), bias: ListedParam::new(Init::Zeros, dims), eps }
    }

    fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        norm(Kind::Layer, x, Some(self.weight.get()), Some(self.bias.get()), self.eps)
    }
}

/// A convolution of the feature extractor.
#[neural_module(no_default)]
pub struct ConvLayer {
    /// Without padding.
    pub conv: Conv1d,
    /// Over channels, or over time.
    pub layer_norm: Option<Norm>,
    /// Whether the norm is over time, each channel by itself.
    pub over_time: bool,
    /// What comes last.
    #[hyper]
    pub activation: Activation,
}

impl ConvLayer {
    fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let mut x = self.conv.apply(x);
        if let Some(norm) = &self.layer_norm {
            x = match self.over_time {
                true => {
                    let channels = type_of(x).dims.get(1).map_or(Extent::constant(1), |d| d.extent.clone());
                    let _scope = trace::scope(norm);
                    group_norm(x, channels, Some(norm.weight.get()), Some(norm.bias.get()), norm.eps)
                }
                false => movement::permute(norm.apply(movement::permute(x, &[0, 2, 1])), &[0, 2, 1]),
            };
        }
        self.activation.apply(x)
    }
}

/// From samples to frames.
#[neural_module(no_default)]
pub struct FeatureExtractor {
    /// The convolutions, in order.
    pub conv_layers: Vec<ConvLayer>,
}

/// From the convolutions' width to the transformer's.
#[neural_module(no_default)]
pub struct FeatureProjection {
    /// Over channels.
    pub layer_norm: Norm,
    /// `[hidden, channels]`
    pub projection: Linear,
}

/// A weight as a direction and a length for each tap (Salimans and Kingma 2016).
#[neural_module(no_default)]
pub struct WeightNormed {
    /// `[1, 1, taps]`
    #[name("parametrizations.weight.original0")]
    pub length: ListedParam,
    /// `[width, width / groups, taps]`
    #[name("parametrizations.weight.original1")]
    pub direction: ListedParam,
    /// `[width]`
    pub bias: ListedParam,
    /// Groups of channels.
    pub groups: u64,
    /// Taps.
    pub taps: u64,
}

impl WeightNormed {
    /// `[batch, width, time]` to the same.
    fn apply(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let (v, g) = (self.direction.get(), self.length.get());
        let dims = type_of(v).dims;
        let size = ew::powf(reduce::reduce(ew::mul(v, v), reduce::Kind::Sum, &[0, 1]), 0.5);
        let g = movement::reshape(g, vec![Dim::fixed(self.taps)]);
        let weight = ew::mul(v, reduce::restore(ew::div(g, size), &dims, &[0, 1]));
        // Of an even number of taps the last result is one too many.
        let before = self.taps / 2;
        let geometry = Geometry {
            stride: vec![1],
            padding: vec![[before, self.taps - 1 - before]],
            dilation: vec![1],
            groups: Extent::constant(self.groups),
        };
        conv(x, weight, Some(self.bias.get()), &geometry)
    }
}

/// Tells frames apart by place.
#[neural_module(no_default)]
pub struct Places {
    /// Over time.
    pub conv: WeightNormed,
    /// Behind it.
    #[hyper]
    pub activation: Activation,
}

/// Attention of frames to each other.
#[neural_module(no_default)]
pub struct Attention {
    /// `[hidden, hidden]`
    pub q_proj: Linear,
    /// `[hidden, hidden]`
    pub k_proj: Linear,
    /// `[hidden, hidden]`
    pub v_proj: Linear,
    /// `[hidden, hidden]`
    pub out_proj: Linear,
    /// Heads.
    pub heads: u64,
}

impl Attention {
    fn apply(&self, x: Handle, counts: Option<Handle>) -> Handle {
        let _scope = trace::scope(self);
        let dims = type_of(x).dims;
        let [batch, time, hidden] = &dims[..] else { return x };
        let features = hidden.extent.as_constant().unwrap_or(0) / self.heads.max(1);
        let split = vec![batch.clone(), time.clone(), Dim::fixed(self.heads), Dim::fixed(features)];
        type Split = (Batch, Steps20, Heads, HeadDim);
        let part = |layer: &Linear| Tensor::<Split>::from_raw(movement::reshape(layer.apply(x), split.clone()));
        let seen = attention(part(&self.q_proj), part(&self.k_proj), part(&self.v_proj));
        let seen = match counts {
            Some(counts) => seen.lengths(Tensor::<(Batch,), Index>::from_raw(counts)),
            None => seen,
        };
        self.out_proj.apply(movement::reshape(seen.output().raw(), dims))
    }
}

/// The feed-forward part of a layer.
#[neural_module(no_default)]
pub struct FeedForward {
    /// `[inner, hidden]`
    pub intermediate_dense: Linear,
    /// `[hidden, inner]`
    pub output_dense: Linear,
    /// What is between.
    #[hyper]
    pub activation: Activation,
}

/// A layer of the transformer.
#[neural_module(no_default)]
pub struct Layer {
    /// Attention.
    pub attention: Attention,
    /// The norm of attention.
    pub layer_norm: Norm,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
    /// Its norm.
    pub final_layer_norm: Norm,
    /// Whether norms come before, not after.
    pub before: bool,
}

impl Layer {
    fn feed(&self, x: Handle) -> Handle {
        let _scope = trace::scope(&self.feed_forward);
        let f = &self.feed_forward;
        f.output_dense.apply(f.activation.apply(f.intermediate_dense.apply(x)))
    }

    fn apply(&self, x: Handle, counts: Option<Handle>) -> Handle {
        let _scope = trace::scope(self);
        if self.before {
            let x = ew::add(x, self.attention.apply(self.layer_norm.apply(x), counts));
            return ew::add(x, self.feed(self.final_layer_norm.apply(x)));
        }
        let x = self.layer_norm.apply(ew::add(x, self.attention.apply(x, counts)));
        self.final_layer_norm.apply(ew::add(x, self.feed(x)))
    }
}

/// The transformer.
#[neural_module(no_default)]
pub struct Encoder {
    /// Tells frames apart by place.
    pub pos_conv_embed: Places,
    /// Before the layers, or behind them.
    pub layer_norm: Norm,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Whether norms come before what they are for.
    pub before: bool,
}

/// All but the head.
#[neural_module(no_default)]
pub struct Body {
    /// From samples to frames.
    pub feature_extractor: FeatureExtractor,
    /// To the transformer's width.
    pub feature_projection: FeatureProjection,
    /// The transformer.
    pub encoder: Encoder,
}

/// Wav2Vec 2.0 with a CTC head.
#[neural_module(no_default)]
pub struct Wav2Vec2Ctc {
    /// All but the head.
    pub wav2vec2: Body,
    /// `[letters, hidden]`
    pub lm_head: Linear,
}

/// What a network gives: streams by Hugging Face's names, logits last.
struct Streams {
    extracted: Handle,
    hidden: Vec<Handle>,
    logits: Handle,
}

impl Wav2Vec2Ctc {
    /// Samples `[Batch, Samples]` and how many count; with `masked`, frames beyond are not seen.
    fn forward(&self, x: Handle, samples: Handle, masked: bool) -> Streams {
        let _scope = trace::scope(self);
        let body = &self.wav2vec2;
        let mut dims = type_of(x).dims;
        dims.insert(1, Dim::fixed(1));
        let (mut x, mut counts) = (movement::reshape(x, dims), samples);
        for layer in &body.feature_extractor.conv_layers {
            x = layer.apply(x);
            counts = layer.conv.steps.lengths(counts);
        }
        let extracted = body.feature_projection.layer_norm.apply(movement::permute(x, &[0, 2, 1]));
        let mut x = body.feature_projection.projection.apply(extracted);
        let seen = masked.then_some(counts);
        if masked {
            x = only(x, counts);
        }
        let encoder = &body.encoder;
        let places = &encoder.pos_conv_embed;
        let placed = places.activation.apply(places.conv.apply(movement::permute(x, &[0, 2, 1])));
        x = ew::add(x, movement::permute(placed, &[0, 2, 1]));
        if !encoder.before {
            x = encoder.layer_norm.apply(x);
        }
        let mut hidden = vec![x];
        for layer in &encoder.layers {
            x = layer.apply(x, seen);
            hidden.push(x);
        }
        if encoder.before {
            x = encoder.layer_norm.apply(x);
        }
        Streams { extracted, hidden, logits: self.lm_head.apply(x) }
    }
}

/// `[batch, time, width]` with zeros in frames that do not count.
fn only(x: Handle, counts: Handle) -> Handle {
    let dims = type_of(x).dims;
    let Some(places) = dims.get(..2) else { return x };
    let places = TensorType::new(places.to_vec(), DType::I32);
    let counts = reduce::restore(counts, &places.dims, &[1]);
    let within = ew::compare(CompareKind::Lt, leaf::iota(1, &places), counts);
    ew::select(reduce::restore(within, &dims, &[2]), x, leaf::scalar(0.0))
}

/// Sizes of a list in a configuration.
fn list(config: &Config, key: &str) -> Result<Vec<u64>, ConfigError> {
    let numbers = config.numbers(key)?.ok_or_else(|| config.missing(key))?;
    let whole = |n: f64| (n >= 1.0 && n <= 1e6 && n.fract() == 0.0).then_some(n as u64);
    let all: Option<Vec<u64>> = numbers.into_iter().map(whole).collect();
    all.filter(|all| !all.is_empty()).ok_or_else(|| config.wrong(key, "sizes of at least 1"))
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn wav2vec2(config: &Config) -> Result<Wav2Vec2Ctc, ConfigError> {
    let (widths, kernels, strides) =
        (list(config, "conv_dim")?, list(config, "conv_kernel")?, list(config, "conv_stride")?);
    if kernels.len() != widths.len() || strides.len() != widths.len() {
        return Err(config.wrong("conv_kernel", format!("a kernel and a stride for each of {} widths", widths.len())));
    }
    let over_time = match config.word("feat_extract_norm")?.unwrap_or("group") {
        "group" => true,
        "layer" => false,
        _ => return Err(config.wrong("feat_extract_norm", "group or layer")),
    };
    if config.flag("add_adapter", false)? {
        return Err(config.wrong("add_adapter", "false: adapters behind the transformer are not known"));
    }
    let (bias, before) = (config.flag("conv_bias", false)?, config.flag("do_stable_layer_norm", false)?);
    let activation = config.activation("feat_extract_activation", "gelu")?;
    let eps = config.number("layer_norm_eps", 1e-5)?;
    let mut inputs = Dim::fixed(1);
    let mut conv_layers = vec![];
    for (i, ((width, kernel), stride)) in widths.iter().zip(&kernels).zip(&strides).enumerate() {
        let filters = Dim::fixed(*width);
        let steps = Steps { kernel: *kernel, stride: *stride, padding: [0, 0], dilation: 1 };
        conv_layers.push(ConvLayer {
            conv: Conv1d::new([&inputs, &filters], steps, bias),
            // Their norms have an epsilon of their own.
            layer_norm: (i == 0 || !over_time).then(|| Norm::new(&filters, 1e-5)),
            over_time,
            activation,
        });
        inputs = filters;
    }
    let size = |key: &str| config.size(key).map(|n| n as u64);
    let (hidden, inner, heads) = (size("hidden_size")?, size("intermediate_size")?, size("num_attention_heads")?);
    if hidden % heads != 0 {
        return Err(config.wrong("num_attention_heads", format!("a divisor of `hidden_size`, {hidden}")));
    }
    let (taps, groups) = (size("num_conv_pos_embeddings")?, size("num_conv_pos_embedding_groups")?);
    if hidden % groups != 0 {
        return Err(config.wrong("num_conv_pos_embedding_groups", format!("a divisor of `hidden_size`, {hidden}")));
    }
    let (width, ffn) = (Dim::fixed(hidden), Dim::fixed(inner));
    let square = || Linear::new([&width, &width], true);
    let feed = config.activation("hidden_act", "gelu")?;
    let layer = |_| Layer {
        attention: Attention { q_proj: square(), k_proj: square(), v_proj: square(), out_proj: square(), heads },
        layer_norm: Norm::new(&width, eps),
        feed_forward: FeedForward {
            intermediate_dense: Linear::new([&width, &ffn], true),
            output_dense: Linear::new([&ffn, &width], true),
            activation: feed,
        },
        final_layer_norm: Norm::new(&width, eps),
        before,
    };
    let places = Places {
        conv: WeightNormed {
            length: ListedParam::new(Init::Ones, &[Dim::fixed(1), Dim::fixed(1), Dim::fixed(taps)]),
            direction: ListedParam::new(
                Init::default(),
                &[width.clone(), Dim::fixed(hidden / groups), Dim::fixed(taps)],
            ),
            bias: ListedParam::new(Init::Zeros, std::slice::from_ref(&width)),
            groups,
            taps,
        },
        activation,
    };
    Ok(Wav2Vec2Ctc {
        lm_head: Linear::new([&width, &Dim::fixed(size("vocab_size")?)], true),
        wav2vec2: Body {
            feature_extractor: FeatureExtractor { conv_layers },
            feature_projection: FeatureProjection {
                layer_norm: Norm::new(&inputs, eps),
                projection: Linear::new([&inputs, &width], true),
            },
            encoder: Encoder {
                pos_conv_embed: places,
                layer_norm: Norm::new(&width, eps),
                layers: (0..config.layers()?).map(layer).collect(),
                before,
            },
        },
    })
}

type Sound = Tensor<(Batch, Samples)>;
type Hear = Program<(Sound, SampleCounts), Tensor<(Batch, Steps20, Letters)>>;

/// What a network computes of recordings, for comparisons.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `[Batch, Time, Letters]`
    pub logits: Values,
    /// The convolutions' stream behind its norm.
    pub extracted: Values,
    /// The transformer's streams, before the first layer and after each.
    pub hidden: Vec<Values>,
    /// How many frames of each recording count.
    pub frames: Vec<usize>,
}

/// A loaded network with its alphabet.
pub struct Wav2Vec2Recognizer {
    model: Model<Wav2Vec2Ctc>,
    config: Config,
    /// Whether it sees only what counts, so that recordings may share a batch.
    masked: bool,
    /// Whether recordings are scaled to variance 1.
    normalize: bool,
    letters: BTreeMap<u32, String>,
    blank: u32,
    weights: Weights,
    hear: OnceCell<Hear>,
}

impl Wav2Vec2Recognizer {
    /// Builds the network that a configuration describes. `preprocessor` and `letters` are what lies
    /// beside it: `preprocessor_config.json` and `vocab.json`.
    ///
    /// # Errors
    /// Settings that make no sense, tensors that do not fit.
    pub fn load(
        config: &Config,
        preprocessor: Option<&Config>,
        letters: BTreeMap<u32, String>,
        tensors: &dyn Source,
    ) -> Result<Wav2Vec2Recognizer, AsrError> {
        let old = tensors.info("wav2vec2.encoder.pos_conv_embed.conv.weight_g").is_some();
        let options = LoadOptions::new().passing_over("**.masked_spec_embed").rename(move |name| match old {
            true => name
                .replace("parametrizations.weight.original0", "weight_g")
                .replace("parametrizations.weight.original1", "weight_v"),
            false => name.to_string(),
        });
        let model = options.load(wav2vec2(config)?, tensors).map_err(OpenError::from)?;
        let flag = |key: &str, default| preprocessor.map_or(Ok(default), |p| p.flag(key, default));
        let group = config.word("feat_extract_norm")?.unwrap_or("group") == "group";
        let blank = config.count("pad_token_id")?.unwrap_or(0) as u32;
        Ok(Wav2Vec2Recognizer {
            model,
            config: config.clone(),
            masked: flag("return_attention_mask", !group)? && !group,
            normalize: flag("do_normalize", true)?,
            letters,
            blank,
            weights: Weights::default(),
            hear: OnceCell::new(),
        })
    }

    /// Opens the network of a place.
    ///
    /// # Errors
    /// As [`load`](Self::load); an alphabet that cannot be read.
    pub fn open(pretrained: &Pretrained, device: Device, weights: Weights) -> Result<Wav2Vec2Recognizer, AsrError> {
        let config = Config::new(pretrained.path.display().to_string(), pretrained.config.clone());
        let folder = match pretrained.path.is_dir() {
            true => pretrained.path.clone(),
            false => pretrained.path.parent().unwrap_or(std::path::Path::new("")).to_path_buf(),
        };
        let preprocessor = folder.join("preprocessor_config.json");
        let preprocessor = match preprocessor.is_file() {
            true => {
                Some(Config::new(preprocessor.display().to_string(), crate::import::json::read_object(&preprocessor)?))
            }
            false => None,
        };
        let path = folder.join("vocab.json");
        let alphabet = Config::new(path.display().to_string(), crate::import::json::read_object(&path)?);
        let letters = alphabet_of(&alphabet)?;
        let mut found = Wav2Vec2Recognizer::load(&config, preprocessor.as_ref(), letters, &*pretrained.tensors)?;
        found.model.store().set_device(device);
        found.weights = weights;
        Ok(found)
    }

    /// Runs it on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    /// The blank of its head.
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// Everything about recordings that are scaled already, of which so many samples count.
    ///
    /// # Errors
    /// Recordings that are too short.
    pub fn score(&self, rows: usize, samples: Vec<f32>, counts: &[usize]) -> Result<Scores, ProgramError> {
        let masked = self.masked;
        let program = self.model.compile(|m, (x, counts): (Sound, SampleCounts)| {
            let found = m.forward(x.raw(), counts.raw(), masked);
            let all = [found.logits, found.extracted].into_iter().chain(found.hidden);
            all.map(Tensor::from_raw).collect::<Vec<Tensor<(Batch, Steps20, Width)>>>()
        })?;
        let streams = program.run(arguments(rows, samples, counts))?;
        let mut all = streams.into_iter().map(|a| Values { sizes: a.sizes().to_vec(), data: a.into_vec() });
        let mut next = || all.next().expect("the program gives logits and the extracted stream first");
        let (logits, extracted) = (next(), next());
        let frames = counts.iter().map(|n| self.frames(*n)).collect();
        Ok(Scores { logits, extracted, hidden: all.collect(), frames })
    }

    fn hearing(&self) -> Result<&Hear, ProgramError> {
        if let Some(made) = self.hear.get() {
            return Ok(made);
        }
        let (masked, normalize) = (self.masked, self.normalize);
        let program = self.model.compile(|m, (x, counts): (Sound, SampleCounts)| {
            let x = if normalize { normalized(x, counts) } else { x };
            let logits = m.forward(x.raw(), counts.raw(), masked).logits;
            Tensor::<(Batch, Steps20, Letters)>::from_raw(logits).log_softmax(Letters)
        })?;
        let program = program.with_weights(self.weights.clone())?;
        Ok(self.hear.get_or_init(|| program))
    }

    /// How many frames a recording of so many samples has.
    fn frames(&self, samples: usize) -> usize {
        let layers = &self.model.wav2vec2.feature_extractor.conv_layers;
        layers.iter().fold(samples, |n, layer| {
            let steps = layer.conv.steps;
            n.checked_sub(steps.kernel as usize).map_or(0, |n| n / steps.stride as usize + 1)
        })
    }

    /// The words of a recording's log-probabilities.
    fn words(&self, samples: usize, log_probs: &[f32], letters: usize) -> Result<Transcript, AsrError> {
        let duration = Duration::from_secs_f64(samples as f64 / 16_000.0);
        let emissions = Emissions { log_probs, classes: letters };
        let found = ctc::greedy(&[emissions], self.blank as usize, None)?;
        let stride: u64 =
            self.model.wav2vec2.feature_extractor.conv_layers.iter().map(|layer| layer.conv.steps.stride).product();
        let at = |frame: usize| Duration::from_secs_f64(frame as f64 * stride as f64 / 16_000.0).min(duration);
        let tokens = found.first().map(|h| h.tokens.as_slice()).unwrap_or_default();
        let mut words: Vec<Word> = vec![];
        let mut open = false;
        for token in tokens {
            match self.letters.get(&token.id).map(String::as_str) {
                None => {}
                Some("|") | Some(" ") => open = false,
                Some(letter) if letter.starts_with('<') && letter.len() > 1 => {}
                Some(letter) => {
                    if !std::mem::replace(&mut open, true) {
                        words.push(Word { start: at(token.start), ..Word::default() });
                    }
                    if let Some(word) = words.last_mut() {
                        word.text += letter;
                        word.end = at(token.end);
                    }
                }
            }
        }
        let text = words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        let segment = words.first().zip(words.last()).map(|(first, last)| Segment {
            start: first.start,
            end: last.end,
            text: text.clone(),
            tokens: tokens.iter().map(|t| t.id).collect(),
            words: words.clone(),
            confidence: None,
        });
        Ok(Transcript { text, language: None, duration, segments: segment.into_iter().collect() })
    }
}

/// The letters of a `vocab.json`, which may hold one such for each of several languages: then the first.
fn alphabet_of(alphabet: &Config) -> Result<BTreeMap<u32, String>, ConfigError> {
    let object = alphabet.value().as_object();
    let inner = object.and_then(|o| o.values().next()).filter(|v| v.is_object());
    let object = inner.and_then(|v| v.as_object()).or(object);
    let mut letters = BTreeMap::new();
    for (letter, id) in object.into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| alphabet.wrong(letter, "a number"))?;
        letters.insert(id, letter.clone());
    }
    Ok(letters)
}

fn arguments(
    rows: usize,
    samples: Vec<f32>,
    counts: &[usize],
) -> (Array<(Batch, Samples)>, Array<(Batch,), Lengths<Samples>>) {
    let each = samples.len().checked_div(rows).unwrap_or(0);
    let counts = counts.iter().map(|n| *n as i32).collect();
    (Array::from_parts(&[rows, each], samples), Array::from_parts(&[rows], counts))
}

impl Recognizer for Wav2Vec2Recognizer {
    type Error = AsrError;

    fn sample_rate(&self) -> u32 {
        16_000
    }

    fn transcribe(&self, recordings: &[&[f32]]) -> Result<Vec<Transcript>, AsrError> {
        let mut all = vec![];
        for recording in recordings {
            let frames = self.frames(recording.len());
            if frames == 0 {
                let duration = Duration::from_secs_f64(recording.len() as f64 / 16_000.0);
                all.push(Transcript { duration, ..Transcript::default() });
                continue;
            }
            let found = self.hearing()?.run(arguments(1, recording.to_vec(), &[recording.len()]))?;
            let letters = found.sizes()[2];
            all.push(self.words(recording.len(), found.data(), letters)?);
        }
        Ok(all)
    }
}
