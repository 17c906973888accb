//! A block of `ConvASREncoder`: NeMo's `JasperBlock`.
//!
//! ```text
//! y = norm(conv(.. activation(norm(conv(x)))))        [squeeze and excitation]
//! out = activation(y + sum of norm(point(residual)))
//! ```
//!
//! A convolution is one of each channel and one of one position where the block is separable; each makes the frames
//! beyond a recording's length zero first. Names are those of NeMo's flat list: convolutions, norm, activation and
//! dropout count, also where they have no parameters (`mconv.5.conv.weight` is the second convolution).

use super::settings::{BlockSettings, ResidualMode};
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{DType, Dim, TensorType};
use mobilis_runtime::module::init::Init;
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::nn::Activation;
use mobilis_runtime::nn::listed::{BatchNorm, Conv1d, Linear, Steps};
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind, UnaryKind};
use mobilis_runtime::ops::{leaf, random, reduce};
use mobilis_runtime::prelude::*;

/// A stream `[batch, channels, time]` and how many of its frames count, `[batch]`.
#[derive(Clone, Copy)]
pub struct Sound {
    /// The stream.
    pub x: Handle,
    /// How many frames count.
    pub lengths: Handle,
}

impl Sound {
    /// True in frames that count, `[batch, channels, time]`.
    pub fn mask(self) -> Handle {
        let dims = type_of(self.x).dims;
        if dims.len() != 3 {
            return self.x;
        }
        let places = TensorType::new(vec![dims[0].clone(), dims[2].clone()], DType::I32);
        let lengths = reduce::restore(self.lengths, &places.dims, &[1]);
        let counts = ew::compare(CompareKind::Lt, leaf::iota(1, &places), lengths);
        reduce::restore(counts, &dims, &[1])
    }

    /// The stream with zeros in frames that do not count.
    pub fn masked(self) -> Handle {
        ew::select(self.mask(), self.x, leaf::scalar(0.0))
    }

    /// The sum over frames that count, `[batch, channels]`, and how many there are, at least one.
    pub fn summed(self) -> (Handle, Handle) {
        let sum = reduce::reduce(self.masked(), reduce::Kind::Sum, &[2]);
        let dims = type_of(sum).dims;
        let count = ew::cast(ew::maximum(self.lengths, ew::constant_like(self.lengths, 1.0)), DType::F32);
        (sum, reduce::restore(count, &dims, &[1]))
    }

    /// The mean over frames that count, `[batch, channels]`.
    pub fn mean(self) -> Handle {
        let (sum, count) = self.summed();
        ew::div(sum, count)
    }
}

/// A convolution that sees no frame beyond a recording's length: NeMo's `MaskedConv1d`.
#[neural_module(no_default)]
pub struct MaskedConv1d {
    /// The convolution, without bias.
    pub conv: Conv1d,
    /// Whether it masks.
    pub masked: bool,
}

impl MaskedConv1d {
    fn new(conv: Conv1d, masked: bool) -> Self {
        // NeMo's `init_mode`.
        MaskedConv1d { conv: conv.with_init(Init::XavierUniform { gain: 1.0 }), masked }
    }

    fn apply(&self, sound: Sound) -> Sound {
        let _scope = trace::scope(self);
        let x = if self.masked { sound.masked() } else { sound.x };
        Sound { x: self.conv.apply(x), lengths: self.conv.steps.lengths(sound.lengths) }
    }
}

/// Scales channels by what the whole recording says: NeMo's `SqueezeExcite` (Hu et al. 2018).
#[neural_module(no_default)]
pub struct SqueezeExcite {
    /// `[channels / ratio, channels]`
    #[name("fc.0")]
    pub down: Linear,
    /// `[channels, channels / ratio]`
    #[name("fc.2")]
    pub up: Linear,
    /// What is between the two.
    #[hyper]
    pub activation: Activation,
}

impl SqueezeExcite {
    fn new(channels: &Dim, inner: u64, activation: Activation) -> Self {
        let inner = Dim::fixed(inner);
        SqueezeExcite {
            down: Linear::new([channels, &inner], false),
            up: Linear::new([&inner, channels], false),
            activation,
        }
    }

    fn apply(&self, sound: Sound) -> Sound {
        let _scope = trace::scope(self);
        let inner = self.activation.apply(self.down.apply(sound.mean()));
        let scale = ew::unary(UnaryKind::Sigmoid, self.up.apply(inner));
        let dims = type_of(sound.x).dims;
        Sound { x: ew::mul(sound.masked(), reduce::restore(scale, &dims, &[2])), ..sound }
    }
}

/// Convolutions and the norm behind them.
struct Layer {
    convs: Vec<MaskedConv1d>,
    norm: BatchNorm,
}

impl Layer {
    fn new([inputs, filters]: [&Dim; 2], separable: bool, steps: Steps, masked: bool) -> Layer {
        let convs = match separable {
            true => vec![Conv1d::depthwise(inputs, steps, false), Conv1d::new([inputs, filters], Steps::POINT, false)],
            false => vec![Conv1d::new([inputs, filters], steps, false)],
        };
        let convs = convs.into_iter().map(|conv| MaskedConv1d::new(conv, masked)).collect();
        Layer { convs, norm: BatchNorm::new(filters, 1e-3) }
    }

    fn apply(&self, sound: Sound) -> Sound {
        let sound = self.convs.iter().fold(sound, |sound, conv| conv.apply(sound));
        Sound { x: self.norm.apply(sound.x), ..sound }
    }

    /// Shows the parts under the numbers from `at` on; gives the next number.
    fn visit<'a>(&'a self, list: &str, at: usize, visitor: &mut dyn Visitor<'a>) -> usize {
        for (i, conv) in self.convs.iter().enumerate() {
            visitor.module(&format!("{list}.{}", at + i), conv);
        }
        visitor.module(&format!("{list}.{}", at + self.convs.len()), &self.norm);
        at + self.convs.len() + 1
    }
}

/// A block.
pub struct Block {
    layers: Vec<Layer>,
    squeeze: Option<SqueezeExcite>,
    residuals: Vec<Layer>,
    mode: ResidualMode,
    /// Whether blocks behind this one see its input too.
    dense: bool,
    activation: Activation,
    dropout: f64,
}

impl Block {
    /// A block from inputs of these channels to others: its own input last, those of blocks before it where
    /// residuals are dense.
    pub fn new(settings: &BlockSettings, inputs: &[Dim], filters: &Dim, activation: Activation, masked: bool) -> Block {
        let s = settings;
        let layers = (0..s.repeat).map(|i| {
            let inputs = if i == 0 { inputs.last().unwrap_or(filters) } else { filters };
            let last = i + 1 == s.repeat;
            let stride = if s.stride_last && !last { 1 } else { s.steps.stride };
            Layer::new([inputs, filters], s.separable, Steps { stride, ..s.steps }, masked)
        });
        let stride = if s.residual_mode == ResidualMode::StrideAdd { s.steps.stride } else { 1 };
        let from = if s.dense { inputs } else { &inputs[inputs.len().saturating_sub(1)..] };
        let from = if s.residual { from } else { &[] };
        let residual = |n: &Dim| Layer::new([n, filters], false, Steps { stride, ..Steps::POINT }, masked);
        Block {
            layers: layers.collect(),
            squeeze: s.squeeze.map(|ratio| SqueezeExcite::new(filters, s.filters / ratio, activation)),
            residuals: from.iter().map(residual).collect(),
            mode: s.residual_mode,
            dense: s.dense && s.residual,
            activation,
            dropout: s.dropout,
        }
    }

    fn activated(&self, sound: Sound) -> Sound {
        Sound { x: random::dropout(self.activation.apply(sound.x), self.dropout), ..sound }
    }

    /// The block's output behind the inputs that later blocks see. All inputs have the same lengths.
    pub fn apply(&self, inputs: Vec<Sound>) -> Vec<Sound> {
        let _scope = trace::scope(self);
        let Some(own) = inputs.last().copied() else { return inputs };
        let mut out = own;
        for (i, layer) in self.layers.iter().enumerate() {
            out = layer.apply(if i == 0 { out } else { self.activated(out) });
        }
        if let Some(squeeze) = &self.squeeze {
            out = squeeze.apply(out);
        }
        let from = inputs.len().saturating_sub(self.residuals.len());
        for (residual, input) in self.residuals.iter().zip(&inputs[from..]) {
            let side = residual.apply(*input).x;
            out.x = match self.mode {
                ResidualMode::Add | ResidualMode::StrideAdd => ew::add(out.x, side),
                ResidualMode::Max => ew::maximum(out.x, side),
            };
        }
        let out = self.activated(out);
        match self.dense {
            true => inputs.into_iter().chain([out]).collect(),
            false => vec![out],
        }
    }
}

impl Module for Block {
    fn kind(&self) -> &'static str {
        "JasperBlock"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        let mut at = 0;
        for (i, layer) in self.layers.iter().enumerate() {
            // Activation and dropout stand between convolutions.
            at = layer.visit("mconv", at + if i == 0 { 0 } else { 2 }, visitor);
        }
        if let Some(squeeze) = &self.squeeze {
            visitor.module(&format!("mconv.{at}"), squeeze);
        }
        for (i, residual) in self.residuals.iter().enumerate() {
            residual.visit(&format!("res.{i}"), 0, visitor);
        }
    }
}
