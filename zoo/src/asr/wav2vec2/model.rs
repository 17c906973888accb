//! The network of Wav2Vec 2.0: convolutions, a transformer, a head.

use crate::audio::Batch;
use crate::llm::config::{Config, ConfigError};
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

axes! {
    /// Frames behind the convolutions.
    pub Steps20;
    /// Heads of attention.
    Heads;
    /// Features of a head.
    HeadDim;
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
pub(super) struct Streams {
    /// The convolutions' stream behind its norm.
    pub(super) extracted: Handle,
    /// The transformer's, before the first layer and after each.
    pub(super) hidden: Vec<Handle>,
    /// What the head says.
    pub(super) logits: Handle,
}

impl Wav2Vec2Ctc {
    /// Samples `[Batch, Samples]` and how many count; with `masked`, frames beyond are not seen.
    pub(super) fn forward(&self, x: Handle, samples: Handle, masked: bool) -> Streams {
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
    let whole = |n: f64| ((1.0..=1e6).contains(&n) && n.fract() == 0.0).then_some(n as u64);
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
