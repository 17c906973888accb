//! What hides parts of features in training, as graph functions.
//!
//! [`SpecAugment`] is Park et al. 2019 (<https://arxiv.org/abs/1904.08779>) in NeMo's vectorized form: time masks, then
//! frequency masks, widths `floor(U · W)`, starts `floor(U · (length - width))`; a width given as a share is one of
//! the recording's own frames. [`SpecAugment::cutout`] is DeVries and Taylor 2017: rectangles. [`crop_or_pad`] makes
//! all recordings equally long. Choices are drawn from the program's counter, so a run can be repeated.
//! In inference nothing is hidden, and cropping takes the middle.

use crate::audio::features::FrameCounts;
use crate::audio::{Batch, Frames};
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::graph::trace::{self, Handle, Mode, type_of};
use mobilis_runtime::graph::{DType, Dim, Extent, TensorType};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::random::{Distribution, random};
use mobilis_runtime::ops::{gather, leaf, reduce};
use mobilis_runtime::prelude::*;

/// How wide masks over time may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Width {
    /// Frames.
    Frames(usize),
    /// A share of the recording.
    Share(f64),
}

/// NeMo's `SpectrogramAugmentation`, under its names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpecAugment {
    /// How many bands of features are hidden.
    pub freq_masks: usize,
    /// How many stretches of time.
    pub time_masks: usize,
    /// The widest band.
    pub freq_width: usize,
    /// The longest stretch.
    pub time_width: Width,
    /// How many rectangles.
    pub rect_masks: usize,
    /// The longest.
    pub rect_time: usize,
    /// The highest.
    pub rect_freq: usize,
    /// What stands in masked places; in rectangles it is 0.
    pub mask_value: f64,
}

impl Default for SpecAugment {
    fn default() -> Self {
        Self {
            freq_masks: 0,
            time_masks: 0,
            freq_width: 10,
            time_width: Width::Frames(10),
            rect_masks: 0,
            rect_time: 5,
            rect_freq: 20,
            mask_value: 0.0,
        }
    }
}

/// More masks than anybody wants.
const MOST: usize = 1024;

impl SpecAugment {
    /// From the `spec_augment` of a NeMo model.
    ///
    /// # Errors
    /// Settings that are wrong or unknown.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        const KNOWN: [&str; 13] = [
            "freq_masks",
            "time_masks",
            "freq_width",
            "time_width",
            "rect_masks",
            "rect_time",
            "rect_freq",
            "mask_value",
            "_target_",
            "cls",
            "rng",
            "use_vectorized_spec_augment",
            "use_numba_spec_augment",
        ];
        super::strict(config, &KNOWN)?;
        let base = Self::default();
        let masks = |key: &str| match config.count(key)?.unwrap_or(0) {
            n if n <= MOST => Ok(n),
            _ => Err(config.wrong(key, format!("at most {MOST} masks"))),
        };
        let width = |key: &str, or: usize| Ok::<_, ConfigError>(config.count(key)?.unwrap_or(or));
        let time_width = match config.get("time_width") {
            None => base.time_width,
            Some(v) if v.is_u64() => Width::Frames(width("time_width", 10)?),
            Some(_) => match config.number("time_width", 0.0)? {
                share if (0.0..=1.0).contains(&share) => Width::Share(share),
                _ => return Err(config.wrong("time_width", "frames, or a share of 0 to 1")),
            },
        };
        Ok(Self {
            freq_masks: masks("freq_masks")?,
            time_masks: masks("time_masks")?,
            freq_width: width("freq_width", base.freq_width)?,
            time_width,
            rect_masks: masks("rect_masks")?,
            rect_time: width("rect_time", base.rect_time)?,
            rect_freq: width("rect_freq", base.rect_freq)?,
            mask_value: config.number("mask_value", 0.0)?,
        })
    }

    /// Features with parts hidden, in training; in inference the same.
    pub fn forward<F: Axis, M: Axis, E: Float>(
        &self,
        x: Tensor<(Batch, F, M), E>,
        lengths: Tensor<(Batch,), Lengths<F>>,
    ) -> Tensor<(Batch, F, M), E> {
        if trace::mode() == Mode::Eval {
            return x;
        }
        let lengths = ew::cast(lengths.raw(), DType::F32);
        let x = self.cutout(x.raw(), lengths);
        let time = match self.time_width {
            Width::Frames(n) => ew::add(ew::scale(lengths, 0.0), leaf::scalar(n as f64)),
            Width::Share(share) => ew::scale(lengths, share),
        };
        let x = hide(x, 1, self.time_masks, lengths, time, self.mask_value);
        let bands = ew::add(ew::scale(lengths, 0.0), leaf::size(type_of(x).dims[2].extent.clone()));
        let width = ew::add(ew::scale(lengths, 0.0), leaf::scalar(self.freq_width as f64));
        Tensor::from_raw(hide(x, 2, self.freq_masks, bands, width, self.mask_value))
    }

    /// Rectangles of 0, placed as NeMo's `SpecCutout` does, within each recording's own frames.
    fn cutout(&self, x: Handle, lengths: Handle) -> Handle {
        if self.rect_masks == 0 {
            return x;
        }
        let ty = type_of(x);
        let bands = ew::add(ew::scale(lengths, 0.0), leaf::size(ty.dims[2].extent.clone()));
        let masks = Dim::fixed(self.rect_masks as u64);
        // Whole numbers from 0 to `most`, included.
        let up_to = |most: Handle| {
            let most = ew::maximum(most, leaf::scalar(0.0));
            uniform_below(ew::add(most, leaf::scalar(1.0)), &masks)
        };
        let number = |n: usize| ew::add(ew::scale(lengths, 0.0), leaf::scalar(n as f64));
        let spans = [(1, lengths, self.rect_time), (2, bands, self.rect_freq)].map(|(axis, all, most)| {
            let start = up_to(ew::sub(all, number(most)));
            inside(start, up_to(number(most)), &ty.dims[axis])
        });
        let dims = vec![ty.dims[0].clone(), masks, ty.dims[1].clone(), ty.dims[2].clone()];
        let [time, band] = spans;
        let both = ew::binary(BinaryKind::And, reduce::restore(time, &dims, &[3]), reduce::restore(band, &dims, &[2]));
        ew::select(reduce::reduce(both, reduce::Kind::Any, &[1]), leaf::scalar(0.0), x)
    }
}

/// `floor(U · bound)` for each row and mask: `[batch, masks]` of `[batch]`.
fn uniform_below(bound: Handle, masks: &Dim) -> Handle {
    let ty = TensorType::new(vec![type_of(bound).dims[0].clone(), masks.clone()], DType::F32);
    let drawn = ew::mul(random(Distribution::Uniform, &ty), reduce::restore(bound, &ty.dims, &[1]));
    ew::cast(drawn, DType::I32)
}

/// Which positions of a dimension lie in each mask: `[batch, masks, n]`.
fn inside(start: Handle, width: Handle, dim: &Dim) -> Handle {
    let mut dims = type_of(start).dims;
    dims.push(dim.clone());
    let ty = TensorType::new(dims, DType::I32);
    let end = reduce::restore(ew::add(start, width), &ty.dims, &[2]);
    let start = reduce::restore(start, &ty.dims, &[2]);
    let at = leaf::iota(2, &ty);
    ew::binary(BinaryKind::And, ew::compare(CompareKind::Ge, at, start), ew::compare(CompareKind::Lt, at, end))
}

/// Masks over one dimension of `x[batch, frames, features]`.
fn hide(x: Handle, axis: usize, masks: usize, length: Handle, width: Handle, value: f64) -> Handle {
    if masks == 0 {
        return x;
    }
    let ty = type_of(x);
    let masks = Dim::fixed(masks as u64);
    let width = uniform_below(ew::minimum(width, length), &masks);
    let real = ew::cast(width, DType::F32);
    let room = ew::maximum(ew::sub(reduce::restore(length, &type_of(real).dims, &[1]), real), leaf::scalar(0.0));
    let start = ew::cast(ew::mul(random(Distribution::Uniform, &type_of(room)), room), DType::I32);
    let hidden = reduce::reduce(inside(start, width, &ty.dims[axis]), reduce::Kind::Any, &[1]);
    ew::select(reduce::restore(hidden, &ty.dims, &[3 - axis]), leaf::scalar(value), x)
}

/// Recordings of one length of `F` frames: longer ones are cropped (in training anywhere, else in the
/// middle), shorter ones stand in the middle of zeros. NeMo's `CropOrPadSpectrogramAugmentation`, but for
/// each recording's own length rather than the batch's.
pub fn crop_or_pad<F: Axis, M: Axis, E: Float>(
    x: Tensor<(Batch, Frames, M), E>,
    lengths: FrameCounts,
) -> (Tensor<(Batch, F, M), E>, Tensor<(Batch,), Lengths<F>>) {
    let (y, counted) = crop_or_pad_to(x.raw(), lengths.raw(), F::dim());
    (Tensor::from_raw(y), Tensor::from_raw(counted))
}

/// The same of `x [batch, frames, features]` and `lengths [batch]`, to frames of any size: `[batch, to, features]`.
pub(crate) fn crop_or_pad_to(x: Handle, lengths: Handle, to: Dim) -> (Handle, Handle) {
    let ty = type_of(x);
    let target = leaf::index(to.extent.clone());
    let like = |h: Handle| ew::add(ew::sub(lengths, lengths), h);
    let over = ew::sub(lengths, target);
    let zero = leaf::index(Extent::constant(0));
    let spare = ew::maximum(over, zero);
    let crop = if trace::mode() == Mode::Train {
        let drawn = random(Distribution::Uniform, &type_of(lengths));
        let room = ew::add(ew::cast(spare, DType::F32), leaf::scalar(1.0));
        ew::minimum(ew::cast(ew::mul(drawn, room), DType::I32), spare)
    } else {
        half(spare)
    };
    // Where the new frame 0 is in the recording: before its start for short ones.
    let lacking = half(ew::maximum(ew::neg(over), zero));
    let first = ew::sub(crop, lacking);
    let places = TensorType::new(vec![ty.dims[0].clone(), to.clone()], DType::I32);
    let from = ew::add(leaf::iota(1, &places), reduce::restore(first, &places.dims, &[1]));
    let ends = reduce::restore(lengths, &places.dims, &[1]);
    let within = ew::compare(CompareKind::Lt, from, ends);
    let within = ew::binary(BinaryKind::And, within, ew::compare(CompareKind::Ge, from, zero));
    let last = ew::maximum(ew::sub(ends, leaf::index(Extent::constant(1))), zero);
    let from = ew::minimum(ew::maximum(from, zero), last);
    let dims = vec![ty.dims[0].clone(), to, ty.dims[2].clone()];
    let y = gather::gather(x, reduce::restore(from, &dims, &[2]), 1);
    let y = ew::select(reduce::restore(within, &dims, &[2]), y, leaf::scalar(0.0));
    (y, like(target))
}

/// `floor(x / 2)` of whole numbers of at least 0.
fn half(x: Handle) -> Handle {
    let two = leaf::index(Extent::constant(2));
    ew::binary(BinaryKind::Div, ew::sub(x, ew::binary(BinaryKind::Rem, x, two)), two)
}
