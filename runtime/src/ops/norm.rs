//! Normalisation: layer and RMS norm as coarse operations over the last dimension; group,
//! instance and batch norm composed of them and of reductions.
//!
//! With `mean` and `var` (biased) over the last dimension of `n` values:
//!
//! * layer norm (Ba et al. 2016): `y = (x - mean) * r * weight + bias`, `r = 1 / sqrt(var + eps)`
//! * RMS norm (Zhang and Sennrich 2019): `y = x * r * weight`, `r = 1 / sqrt(mean(x^2) + eps)`
//!
//! Backward, with `xhat` the normalised value and `d = g * weight`:
//! `gx = r * (d - mean(d) - xhat * mean(d * xhat))` (RMS norm without `mean(d)`),
//! `gweight = sum over rows of g * xhat`, `gbias = sum over rows of g`. The statistics are computed
//! again rather than kept: the row is read anyway.
//!
//! ```
//! # extern crate mobilis_runtime as mobilis;
//! use mobilis::prelude::*;
//! axes! { Batch; Time; Hidden = 64; Channels8 = 8; }
//!
//! fn scaled(x: Tensor![Batch, Time, Hidden], weight: Tensor![Hidden]) -> Tensor![Batch, Time, Hidden] {
//!     x.rms_norm(Some(weight), 1e-6)
//! }
//!
//! fn in_groups(x: Tensor![Batch, Channels8, Time]) -> Tensor![Batch, Channels8, Time] {
//!     x.group_norm::<4, _>(None, None, 1e-5)
//! }
//! ```

use super::{Cost, GradContext, NoGradient, Rule, elementwise as ew, leaf, reduce};
use crate::graph::trace::{Handle, op1, opn, type_of};
use crate::graph::{DType, Extent, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Element, Float};
use crate::language::shape::{At, EndsWith, Has, Shape};
use crate::tensor::Tensor;

/// Which norm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Mean 0 and variance 1.
    Layer,
    /// Mean square 1.
    Rms,
}

/// A norm over the last dimension. Inputs: `x`, then the weight and the bias where there are any.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Which norm.
    pub kind: Kind,
    /// Added to the variance or the mean square.
    pub eps: f64,
    /// Whether the second input is a weight.
    pub weight: bool,
    /// Whether the last input is a bias.
    pub bias: bool,
    /// Instead of over the last dimension, over each of so many equal parts of all dimensions
    /// but the first (group norm). Then there is neither weight nor bias.
    pub groups: Option<Extent>,
}

/// The gradient of [`Norm`]. Inputs: `x`, the weight where there is one, the gradient by the
/// result. Outputs: the gradients by `x`, by the weight and by the bias, those that exist.
#[derive(Clone, Debug)]
pub struct NormGrad {
    /// The norm that is differentiated.
    pub norm: Norm,
}

impl Norm {
    fn parameters(&self) -> usize {
        self.weight as usize + self.bias as usize
    }

    /// How many values are normalised together, in an input of these sizes; `groups` is the value
    /// of [`Norm::groups`].
    ///
    /// # Errors
    /// Channels that are not a multiple of the groups.
    pub fn row(&self, x: &[usize], groups: Option<usize>) -> Result<usize, String> {
        match groups {
            None => Ok(x[x.len() - 1]),
            Some(g) if g > 0 && x[1].is_multiple_of(g) => Ok(x[1..].iter().product::<usize>() / g),
            Some(g) => Err(format!("{} channels are not a multiple of {g} groups", x[1])),
        }
    }

    fn check(&self, x: &TensorType, parameters: &[&TensorType]) -> Result<(), String> {
        if self.groups.is_some() && (x.rank() < 2 || self.parameters() > 0) {
            return Err(format!("in groups takes [batch, channels, ..] alone, is given {x}"));
        }
        let Some(last) = x.dims.last() else {
            return Err(format!("works on the last dimension, is given {x}"));
        };
        if x.dtype != DType::F32 {
            return Err(format!("takes real numbers, is given {x}"));
        }
        for p in parameters {
            if p.rank() != 1 || p.dims[0].extent != last.extent || p.dtype != DType::F32 {
                return Err(format!("takes weight and bias of the last dimension of {x}, is given {p}"));
            }
        }
        Ok(())
    }
}

impl Rule for Norm {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Layer => "layer_norm",
            Kind::Rms => "rms_norm",
        }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs.len() != 1 + self.parameters() {
            return Err(format!("takes {} inputs, is given {}", 1 + self.parameters(), inputs.len()));
        }
        self.check(inputs[0], &inputs[1..])?;
        Ok(vec![inputs[0].clone()])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inputs = vec![cx.inputs[0]];
        inputs.extend(self.weight.then(|| cx.inputs[1]));
        inputs.push(cx.grad());
        let grads = opn(NormGrad { norm: self.clone() }, &inputs, 1 + self.parameters());
        Ok(grads.into_iter().map(Some).collect())
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(8)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        match &self.groups {
            Some(groups) => format!("eps={:e} groups={groups}", self.eps),
            None => format!("eps={:e}", self.eps),
        }
    }
}

impl Rule for NormGrad {
    fn name(&self) -> &'static str {
        match self.norm.kind {
            Kind::Layer => "layer_norm_grad",
            Kind::Rms => "rms_norm_grad",
        }
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (Some(x), Some(g)) = (inputs.first(), inputs.last()) else {
            return Err("takes inputs".into());
        };
        if inputs.len() != 2 + self.norm.weight as usize || !x.same_extents(g) {
            return Err(format!("takes a value, its weight and the gradient, is given {} inputs", inputs.len()));
        }
        self.norm.check(x, &inputs[1..inputs.len() - 1])?;
        let mut out = vec![(*x).clone()];
        let vector = TensorType::new(x.dims[x.rank() - 1..].to_vec(), DType::F32);
        out.resize(1 + self.norm.parameters(), vector);
        Ok(out)
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of norms are not implemented".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(Extent::mul(inputs[0].count(), Extent::constant(16)), inputs, outputs)
    }
}

/// A norm over the last dimension; `weight` and `bias` have that dimension alone.
pub fn norm(kind: Kind, x: Handle, weight: Option<Handle>, bias: Option<Handle>, eps: f64) -> Handle {
    let op = Norm { kind, eps, weight: weight.is_some(), bias: bias.is_some(), groups: None };
    let inputs: Vec<Handle> = [Some(x), weight, bias].into_iter().flatten().collect();
    op1(op, &inputs)
}

/// `x * weight + bias` with one weight and one bias per index of dimension `channel`.
pub fn channel_affine(x: Handle, channel: usize, weight: Option<Handle>, bias: Option<Handle>) -> Handle {
    let dims = type_of(x).dims;
    let others: Vec<usize> = (0..dims.len()).filter(|d| *d != channel).collect();
    let wide = |h| reduce::restore(h, &dims, &others);
    let x = weight.map_or(x, |w| ew::mul(x, wide(w)));
    bias.map_or(x, |b| ew::add(x, wide(b)))
}

/// Group norm over `[batch, channels, ..]`: mean 0 and variance 1 within each of `groups` equal
/// runs of channels, over all that follows. With as many groups as channels: instance norm.
pub fn group_norm(x: Handle, groups: Extent, weight: Option<Handle>, bias: Option<Handle>, eps: f64) -> Handle {
    let op = Norm { kind: Kind::Layer, eps, weight: false, bias: false, groups: Some(groups) };
    channel_affine(op1(op, &[x]), 1, weight, bias)
}

/// Mean and biased variance of each index of dimension 1 over all other dimensions.
pub fn channel_statistics(x: Handle) -> (Handle, Handle) {
    let dims = type_of(x).dims;
    let others: Vec<usize> = (0..dims.len()).filter(|d| *d != 1).collect();
    let mean = reduce::mean(x, &others);
    let centred = ew::sub(x, reduce::restore(mean, &dims, &others));
    (mean, reduce::mean(ew::mul(centred, centred), &others))
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` per index of dimension 1.
pub fn normalize_channels(
    x: Handle,
    (mean, var): (Handle, Handle),
    weight: Option<Handle>,
    bias: Option<Handle>,
    eps: f64,
) -> Handle {
    let r = ew::unary(ew::UnaryKind::Rsqrt, ew::add(var, leaf::scalar(eps)));
    let scale = weight.map_or(r, |w| ew::mul(w, r));
    let shift = ew::neg(ew::mul(mean, scale));
    channel_affine(x, 1, Some(scale), Some(bias.map_or(shift, |b| ew::add(b, shift))))
}

fn raw<S, E>(t: Option<Tensor<S, E>>) -> Option<Handle> {
    t.map(Tensor::raw)
}

impl<S: Shape, E: Element> Tensor<S, E> {
    /// Layer norm over the last axis `H`, with optional weight and bias; `eps` is added to the
    /// variance. PyTorch: `F.layer_norm(x, [H], weight, bias, eps)`.
    #[inline]
    pub fn layer_norm<H: Axis>(self, weight: Option<Tensor<(H,)>>, bias: Option<Tensor<(H,)>>, eps: f64) -> Tensor<S>
    where
        S: EndsWith<H>,
        E: Float,
    {
        Tensor::from_raw(norm(Kind::Layer, self.raw(), raw(weight), raw(bias), eps))
    }

    /// RMS norm over the last axis `H`: `x / sqrt(mean(x^2) + eps) * weight`.
    /// PyTorch: `F.rms_norm(x, [H], weight, eps)`.
    #[inline]
    pub fn rms_norm<H: Axis>(self, weight: Option<Tensor<(H,)>>, eps: f64) -> Tensor<S>
    where
        S: EndsWith<H>,
        E: Float,
    {
        Tensor::from_raw(norm(Kind::Rms, self.raw(), raw(weight), None, eps))
    }

    /// Group norm over `[batch, channels C, ..]` in `G` groups (Wu and He 2018).
    /// PyTorch: `F.group_norm(x, G, weight, bias, eps)`.
    ///
    /// `C` must be a multiple of `G`: for static axes a remainder is a build error, for run-time
    /// axes it is one when sizes are bound.
    #[inline]
    pub fn group_norm<const G: u64, C: Axis>(
        self,
        weight: Option<Tensor<(C,)>>,
        bias: Option<Tensor<(C,)>>,
        eps: f64,
    ) -> Tensor<S>
    where
        S: Has<C, At<1>>,
        E: Float,
    {
        const {
            assert!(G > 0, "group norm needs at least one group");
            if let Some(c) = C::SIZE {
                assert!(c % G == 0, "group norm: the channels are not a multiple of the groups");
            }
        }
        Tensor::from_raw(group_norm(self.raw(), Extent::constant(G), raw(weight), raw(bias), eps))
    }

    /// Instance norm over `[batch, channels C, ..]`: each channel of each example by itself
    /// (Ulyanov et al. 2016). PyTorch: `F.instance_norm(x, weight=.., bias=.., eps=..)`.
    #[inline]
    pub fn instance_norm<C: Axis>(self, weight: Option<Tensor<(C,)>>, bias: Option<Tensor<(C,)>>, eps: f64) -> Tensor<S>
    where
        S: Has<C, At<1>>,
        E: Float,
    {
        Tensor::from_raw(group_norm(self.raw(), C::extent(), raw(weight), raw(bias), eps))
    }
}
