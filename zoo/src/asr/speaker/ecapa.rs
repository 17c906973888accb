//! ECAPA-TDNN's body: Desplanques et al. 2020 (<https://arxiv.org/abs/2005.07143>), as NeMo's `ECAPAEncoder`.
//!
//! A convolution, blocks of grouped convolutions with squeeze and excitation around which the stream goes, and one
//! layer that sees the outputs of all blocks. NeMo lets convolutions see what its earlier layers make of padding, of
//! which a batch has as much as its longest recording asks for. Here a recording has the padding that it has alone
//! ([`Ecapa::padded_to`]), or none: frames beyond are zero for each convolution, so that a result does not depend on others.

use super::super::conv::block::Sound;
use super::super::conv::{ConvAxes, Counts, FeaturesOf, Steps as Frames, Stream};
use super::pooling::Tdnn;
use crate::audio;
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent, Sizes};
use mobilis_runtime::module::{Module, Visitor};
use mobilis_runtime::nn::Activation;
use mobilis_runtime::nn::listed::{BatchNorm, Conv1d, Steps};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, UnaryKind};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{movement, reduce, slice};
use mobilis_runtime::prelude::*;
use std::marker::PhantomData;

/// Channels between squeeze and excitation.
const SQUEEZE: u64 = 128;

/// What a configuration says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcapaSettings {
    /// Features of a frame.
    pub features: u64,
    /// Channels of the first layer, of each block, and of the last layer.
    pub filters: Vec<u64>,
    /// Their kernels.
    pub kernels: Vec<u64>,
    /// Their dilations.
    pub dilations: Vec<u64>,
    /// Groups of channels in blocks.
    pub scale: u64,
}

impl EcapaSettings {
    /// NeMo's `ECAPAEncoder`.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn nemo(config: &Config) -> Result<EcapaSettings, ConfigError> {
        let list = |key: &str| -> Result<Vec<u64>, ConfigError> {
            let wrong = || config.wrong(key, "a list of 3 to 64 numbers of 1 to 65536");
            let values = config.numbers(key)?.ok_or_else(|| config.missing(key))?;
            let fits = |v: &f64| v.fract() == 0.0 && (1.0..=65536.0).contains(v);
            match (3..=64).contains(&values.len()) && values.iter().all(fits) {
                true => Ok(values.into_iter().map(|v| v as u64).collect()),
                false => Err(wrong()),
            }
        };
        let (filters, kernels, dilations) = (list("filters")?, list("kernel_sizes")?, list("dilations")?);
        let scale = config.count("scale")?.unwrap_or(8) as u64;
        let features = config.size("feat_in")? as u64;
        for (key, other) in [("kernel_sizes", &kernels), ("dilations", &dilations)] {
            if other.len() != filters.len() {
                return Err(config.wrong(key, format!("as many as `filters`, {}", filters.len())));
            }
        }
        let inner = &filters[..filters.len() - 1];
        let joined: u64 = inner[1..].iter().sum();
        if inner.iter().any(|n| *n != inner[0]) || filters[filters.len() - 1] != joined {
            let wanted = format!("equal numbers, and last the sum of all but the first, {joined}");
            return Err(config.wrong("filters", wanted));
        }
        if scale == 0 || !inner[0].is_multiple_of(scale) {
            return Err(config.wrong("scale", format!("a divisor of {}", inner[0])));
        }
        if kernels.iter().any(|k| k % 2 == 0) {
            return Err(config.wrong("kernel_sizes", "odd numbers"));
        }
        if !(1..=65536).contains(&features) {
            return Err(config.wrong("feat_in", "1 to 65536"));
        }
        Ok(EcapaSettings { features, filters, kernels, dilations, scale })
    }
}

/// NeMo's `TDNNSEModule`.
struct Block {
    before: Tdnn,
    conv: Conv1d,
    norm: BatchNorm,
    after: Tdnn,
    squeeze: Conv1d,
    squeeze_norm: BatchNorm,
    excite: Conv1d,
}

impl Block {
    fn new(channels: &Dim, groups: u64, kernel: u64, dilation: u64) -> Block {
        let inner = Dim::fixed(SQUEEZE);
        let both = [channels, channels];
        Block {
            before: Tdnn::new(both, 1, 1),
            conv: Conv1d::grouped(both, groups, Steps::same(kernel, 1, dilation), true),
            norm: BatchNorm::new(channels, 1e-5),
            after: Tdnn::new(both, 1, 1),
            squeeze: Conv1d::new([channels, &inner], Steps::POINT, true),
            squeeze_norm: BatchNorm::new(&inner, 1e-5),
            excite: Conv1d::new([&inner, channels], Steps::POINT, true),
        }
    }

    /// Convolutions see the `sound`'s frames, of which so many count.
    fn apply(&self, sound: Sound, counts: Handle) -> Sound {
        let _scope = trace::scope(self);
        let x = self.before.apply(sound.x);
        let x = self.conv.apply(Sound { x, ..sound }.masked());
        let x = self.after.apply(self.norm.apply(Activation::Relu.apply(x)));
        let mean = Sound { x, lengths: counts }.mean();
        let mut dims = type_of(mean).dims;
        dims.push(Dim::fixed(1));
        let inner = Activation::Relu.apply(self.squeeze.apply(movement::reshape(mean, dims.clone())));
        let scale = ew::unary(UnaryKind::Sigmoid, self.excite.apply(self.squeeze_norm.apply(inner)));
        dims.truncate(2);
        let scale = reduce::restore(movement::reshape(scale, dims), &type_of(x).dims, &[2]);
        Sound { x: ew::add(ew::mul(x, scale), sound.x), ..sound }
    }
}

impl Module for Block {
    fn kind(&self) -> &'static str {
        "TDNNSEModule"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("group_tdnn_block.0", &self.before);
        visitor.module("group_tdnn_block.1", &self.conv);
        visitor.module("group_tdnn_block.3", &self.norm);
        visitor.module("group_tdnn_block.4", &self.after);
        visitor.module("se_layer.se_layer.0", &self.squeeze);
        visitor.module("se_layer.se_layer.2", &self.squeeze_norm);
        visitor.module("se_layer.se_layer.3", &self.excite);
    }
}

/// The body.
pub struct Ecapa<A: ConvAxes> {
    first: Tdnn,
    blocks: Vec<Block>,
    last: Tdnn,
    /// Whole multiples of so many frames are seen, at least one beyond a recording's end.
    padding: Option<u64>,
    ports: PhantomData<fn() -> A>,
}

impl<A: ConvAxes> Ecapa<A> {
    /// A body of these settings.
    pub fn new(settings: &EcapaSettings) -> Self {
        let s = settings;
        let last = s.filters.len() - 1;
        let inner = Dim::fixed(s.filters[0]);
        let blocks = (1..last).map(|i| Block::new(&inner, s.scale, s.kernels[i], s.dilations[i])).collect();
        let joined = Dim::fixed(s.filters[1..last].iter().sum());
        Ecapa {
            first: Tdnn::new([&A::Features::dim(), &inner], s.kernels[0], s.dilations[0]),
            blocks,
            last: Tdnn::new([&joined, &A::Hidden::dim()], s.kernels[last], s.dilations[last]),
            padding: None,
            ports: PhantomData,
        }
    }

    /// The same whose convolutions see of a recording alone what NeMo's do: one frame beyond its end, and so many more
    /// that there is a multiple of `frames` (`pad_to` of its preprocessor).
    #[must_use]
    pub fn padded_to(self, frames: u64) -> Self {
        Ecapa { padding: Some(frames.max(1)), ..self }
    }

    /// The sizes of its ports.
    pub fn sizes(settings: &EcapaSettings) -> Sizes {
        let hidden = settings.filters.last().copied().unwrap_or(0);
        Sizes::new().with::<A::Features>(settings.features as usize).with::<A::Hidden>(hidden as usize)
    }

    /// Features `[Batch, Frames, Features]` to the stream `[Batch, Steps, Hidden]`, one step a frame.
    pub fn forward(&self, x: FeaturesOf<A>, lengths: Counts<audio::Frames>) -> (Stream<A>, Counts<Frames>) {
        let _scope = trace::scope(self);
        let frames = audio::Frames::dim();
        let counts = lengths.raw();
        let mut x = Sound { x: movement::permute(x.raw(), &[0, 2, 1]), lengths: counts }.masked();
        let mut seen = counts;
        if let Some(padding) = self.padding {
            let more = Extent::constant(padding);
            let long = Dim::anonymous(Extent::add(frames.extent.clone(), more.clone()));
            x = pad_zeros(x, 2, Extent::constant(0), more, long);
            // The next multiple behind the last frame.
            let of = |n: u64| ew::constant_like(counts, n as f64);
            let over = ew::binary(BinaryKind::Rem, counts, of(padding));
            seen = ew::add(ew::sub(counts, over), of(padding));
        }
        let whole = |x: Handle| Sound { x, lengths: seen };
        let mut sound = whole(self.first.apply(x));
        let mut outputs = Vec::new();
        for block in &self.blocks {
            sound = block.apply(sound, counts);
            outputs.push(sound.x);
        }
        let channels = outputs.iter().filter_map(|h| type_of(*h).dims[1].extent.as_constant()).sum();
        let joined = slice::concat(&outputs, 1, Dim::fixed(channels));
        let x = movement::permute(self.last.apply(whole(joined).masked()), &[0, 2, 1]);
        let x = slice::slice(x, 1, Extent::constant(0), 1, Dim::anonymous(frames.extent));
        let mut dims = type_of(x).dims;
        if let [_, steps, hidden] = &mut dims[..] {
            steps.axis = Frames::dim().axis;
            hidden.axis = A::Hidden::dim().axis;
        }
        (Tensor::from_raw(movement::relabel(x, dims)), Tensor::from_raw(lengths.raw()))
    }
}

impl<A: ConvAxes> Module for Ecapa<A> {
    fn kind(&self) -> &'static str {
        "ECAPAEncoder"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("layers.0", &self.first);
        for (i, block) in self.blocks.iter().enumerate() {
            visitor.module(&format!("layers.{}", i + 1), block);
        }
        visitor.module("feature_agg", &self.last);
    }
}
