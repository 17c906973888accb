//! Layer, RMS, group and instance norm.

use crate::language::axis::Axis;
use crate::language::element::Float;
use crate::language::shape::{At, EndsWith, Has};
use crate::tensor::Tensor;
use crate::{Param, neural_module};

/// Layer norm over the last axis: mean 0 and variance 1, then `* weight + bias` (Ba et al. 2016).
/// `eps` is 1e-5. PyTorch: `nn.LayerNorm(H)`.
#[neural_module]
pub struct LayerNorm<H: Axis> {
    /// `[H]`, starts at one.
    #[init(ones())]
    pub weight: Param![H],
    /// `[H]`, starts at zero.
    #[default(Some(Param::default()))]
    pub bias: Option<Param![H]>,
    /// Added to the variance.
    #[default(1e-5)]
    pub eps: f64,
}

impl<H: Axis> LayerNorm<H> {
    /// Another value added to the variance.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// The same without a bias.
    #[must_use]
    pub fn no_bias(mut self) -> Self {
        self.bias = None;
        self
    }
}

#[neural_module]
impl<H: Axis> LayerNorm<H> {
    /// Any shape that ends with `H`.
    pub fn forward<S: EndsWith<H>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        x.layer_norm(Some(self.weight.get()), self.bias.as_ref().map(Param::get), self.eps)
    }
}

/// RMS norm over the last axis: `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019).
/// `eps` is 1e-6. PyTorch: `nn.RMSNorm(H, eps=1e-6)`.
#[neural_module]
pub struct RmsNorm<H: Axis> {
    /// `[H]`, starts at one.
    #[init(ones())]
    pub weight: Param![H],
    /// Added to the mean square.
    #[default(1e-6)]
    pub eps: f64,
    /// Added to the weight: 1 in Gemma, whose weights are stored around zero.
    #[skip]
    pub offset: f64,
}

impl<H: Axis> RmsNorm<H> {
    /// Another value added to the mean square.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// The same with a weight around zero, to which one is added (Gemma).
    #[must_use]
    pub fn around_zero(mut self) -> Self {
        self.offset = 1.0;
        self.weight = Param::new(crate::module::init::Init::Zeros);
        self
    }
}

#[neural_module]
impl<H: Axis> RmsNorm<H> {
    /// Any shape that ends with `H`.
    pub fn forward<S: EndsWith<H>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        let weight = self.weight.get();
        let weight = if self.offset == 0.0 { weight } else { weight + self.offset };
        x.rms_norm(Some(weight), self.eps)
    }
}

/// Group norm of `[batch, C, ..]` in `G` groups of channels (Wu and He 2018). `eps` is 1e-5.
/// PyTorch: `nn.GroupNorm(G, C)`.
#[neural_module]
pub struct GroupNorm<const G: u64, C: Axis> {
    /// `[C]`, starts at one.
    #[init(ones())]
    pub weight: Param![C],
    /// `[C]`, starts at zero.
    pub bias: Param![C],
    /// Added to the variance.
    #[default(1e-5)]
    pub eps: f64,
}

#[neural_module]
impl<const G: u64, C: Axis> GroupNorm<G, C> {
    /// `[batch, C, ..]` to the same.
    pub fn forward<S: Has<C, At<1>>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        x.group_norm::<G, C>(Some(self.weight.get()), Some(self.bias.get()), self.eps)
    }
}

/// Instance norm of `[batch, C, ..]`: each channel of each example by itself (Ulyanov et al. 2016).
/// Without parameters, as in PyTorch, unless [`affine`](Self::affine). `eps` is 1e-5.
/// PyTorch: `nn.InstanceNorm1d(C)`, `nn.InstanceNorm2d(C)`.
#[neural_module]
pub struct InstanceNorm<C: Axis> {
    /// `[C]`
    pub weight: Option<Param![C]>,
    /// `[C]`
    pub bias: Option<Param![C]>,
    /// Added to the variance.
    #[default(1e-5)]
    pub eps: f64,
}

impl<C: Axis> InstanceNorm<C> {
    /// The same with a weight that starts at one and a bias that starts at zero.
    #[must_use]
    pub fn affine(mut self) -> Self {
        self.weight = Some(Param::new(crate::module::init::Init::Ones));
        self.bias = Some(Param::default());
        self
    }
}

#[neural_module]
impl<C: Axis> InstanceNorm<C> {
    /// `[batch, C, ..]` to the same.
    pub fn forward<S: Has<C, At<1>>, E: Float>(&self, x: Tensor<S, E>) -> Tensor<S> {
        x.instance_norm(self.weight.as_ref().map(Param::get), self.bias.as_ref().map(Param::get), self.eps)
    }
}
