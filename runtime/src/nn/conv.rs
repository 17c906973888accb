//! Convolution layers over `[Batch, C, L]` and `[Batch, C, H, W]`.
//!
//! Kernel `K`, stride `S`, padding `P` and dilation `D` are part of the type, so the output's
//! length is a derived axis: `Conv1d<C, O, 3, 2, 1>` halves (rounding up), and `relabel` gives
//! the result its declared name with proof. Layers named `Same..` and `Causal..` keep the axis.
//!
//! Weights and biases start uniform in `±1/sqrt(fan_in)`, as in PyTorch; a bias whose fan is not
//! known to the compiler starts at zero.

use crate::language::axis::{Axis, Const, Conv, Quot};
use crate::language::element::Float;
use crate::module::init::{Init, WithInit};
use crate::ops::conv::Sliding;
use crate::tensor::Tensor;
use crate::{Param, neural_module};

/// The initializer of a bias: uniform in `±1/sqrt(channels * taps)`.
pub(super) fn bias_init<C: Axis>(taps: u64) -> Init {
    match C::SIZE {
        Some(channels) if channels * taps > 0 => {
            let bound = 1.0 / ((channels * taps) as f64).sqrt();
            Init::Uniform { low: -bound, high: bound }
        }
        _ => Init::Zeros,
    }
}

/// What every convolution layer can do besides `forward`.
macro_rules! layer {
    ($name:ident [$($generics:tt)*] [$($args:tt)*]) => {
        impl<$($generics)*> $name<$($args)*> {
            /// A new layer with a bias.
            pub fn new() -> Self {
                Self::default()
            }

            /// The same without a bias.
            #[must_use]
            pub fn no_bias(mut self) -> Self {
                self.bias = None;
                self
            }
        }

        impl<$($generics)*> WithInit for $name<$($args)*> {
            /// Another initializer for the weight.
            fn with_init(mut self, init: Init) -> Self {
                self.weight = Param::with_init(self.weight, init);
                self
            }
        }
    };
}
pub(super) use layer;

/// A convolution from `C` to `O` channels. PyTorch: `nn.Conv1d(C, O, K, S, P, D)`.
///
/// ```
/// # extern crate mobilis_runtime as mobilis;
/// use mobilis::nn::Conv1d;
/// use mobilis::prelude::*;
///
/// axes! { Batch; Time; Mels = 8; Hidden = 12; Half = ceil(Time / 2); }
///
/// #[neural_module]
/// struct Subsample {
///     conv: Conv1d<Mels, Hidden, 3, 2, 1>,
/// }
///
/// #[neural_module]
/// impl Subsample {
///     fn forward(&self, x: Tensor![Batch, Mels, Time]) -> Tensor![Batch, Hidden, Half] {
///         self.conv.forward(x).relabel()
///     }
/// }
/// ```
#[neural_module]
pub struct Conv1d<C: Axis, O: Axis, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1> {
    /// `[O, C, K]`
    pub weight: Param<(O, C, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<C>(K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(Conv1d [C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64] [C, O, K, S, P, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64> Conv1d<C, O, K, S, P, D> {
    /// `[Batch, C, L]` to `[Batch, O, Conv<L, K, S, P, D>]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, O, Conv<L, K, S, P, D>)> {
        x.conv1d(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution that looks at one position: a linear layer over channels.
pub type PointwiseConv1d<C, O> = Conv1d<C, O, 1>;

/// A convolution in `G` groups of channels. PyTorch: `nn.Conv1d(C, O, K, S, P, D, groups=G)`.
#[neural_module]
pub struct GroupedConv1d<
    C: Axis,
    O: Axis,
    const G: u64,
    const K: u64,
    const S: u64 = 1,
    const P: u64 = 0,
    const D: u64 = 1,
> {
    /// `[O, C / G, K]`
    pub weight: Param<(O, Quot<C, Const<G>>, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<Quot<C, Const<G>>>(K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(GroupedConv1d
    [C: Axis, O: Axis, const G: u64, const K: u64, const S: u64, const P: u64, const D: u64]
    [C, O, G, K, S, P, D]);

#[neural_module]
impl<C: Axis, O: Axis, const G: u64, const K: u64, const S: u64, const P: u64, const D: u64>
    GroupedConv1d<C, O, G, K, S, P, D>
{
    /// `[Batch, C, L]` to `[Batch, O, Conv<L, K, S, P, D>]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, O, Conv<L, K, S, P, D>)> {
        x.conv1d_grouped(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution of each channel with its own filter. PyTorch: `nn.Conv1d(C, C, K, S, P, D,
/// groups=C)`.
#[neural_module]
pub struct DepthwiseConv1d<C: Axis, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1> {
    /// `[C, 1, K]`
    pub weight: Param<(C, Const<1>, Const<K>)>,
    /// `[C]`
    #[default(Some(Param::new(bias_init::<Const<1>>(K))))]
    pub bias: Option<Param<(C,)>>,
}
layer!(DepthwiseConv1d [C: Axis, const K: u64, const S: u64, const P: u64, const D: u64] [C, K, S, P, D]);

#[neural_module]
impl<C: Axis, const K: u64, const S: u64, const P: u64, const D: u64> DepthwiseConv1d<C, K, S, P, D> {
    /// `[Batch, C, L]` to `[Batch, C, Conv<L, K, S, P, D>]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, C, Conv<L, K, S, P, D>)> {
        x.conv1d_depthwise(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution at stride 1 that keeps the axis. PyTorch: `nn.Conv1d(C, O, K, padding="same",
/// dilation=D)`.
#[neural_module]
pub struct SameConv1d<C: Axis, O: Axis, const K: u64, const D: u64 = 1> {
    /// `[O, C, K]`
    pub weight: Param<(O, C, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<C>(K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(SameConv1d [C: Axis, O: Axis, const K: u64, const D: u64] [C, O, K, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const D: u64> SameConv1d<C, O, K, D> {
    /// `[Batch, C, L]` to `[Batch, O, L]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, O, L)> {
        x.conv1d_same(self.weight.get(), self.bias.as_ref().map(Param::get), Const::<D>)
    }
}

/// A convolution at stride 1 that keeps the axis and sees no later position (van den Oord et al.
/// 2016).
#[neural_module]
pub struct CausalConv1d<C: Axis, O: Axis, const K: u64, const D: u64 = 1> {
    /// `[O, C, K]`
    pub weight: Param<(O, C, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<C>(K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(CausalConv1d [C: Axis, O: Axis, const K: u64, const D: u64] [C, O, K, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const D: u64> CausalConv1d<C, O, K, D> {
    /// `[Batch, C, L]` to `[Batch, O, L]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(&self, x: Tensor<(B, C, L), E>) -> Tensor<(B, O, L)> {
        x.conv1d_causal(self.weight.get(), self.bias.as_ref().map(Param::get), Const::<D>)
    }
}

/// A convolution over planes with a square kernel. PyTorch: `nn.Conv2d(C, O, K, S, P, D)`.
#[neural_module]
pub struct Conv2d<C: Axis, O: Axis, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1> {
    /// `[O, C, K, K]`
    pub weight: Param<(O, C, Const<K>, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<C>(K * K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(Conv2d [C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64] [C, O, K, S, P, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64> Conv2d<C, O, K, S, P, D> {
    /// `[Batch, C, H, W]` to `[Batch, O, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>]`.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, O, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>)> {
        x.conv2d(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution that looks at one position: a linear layer over channels.
pub type PointwiseConv2d<C, O> = Conv2d<C, O, 1>;

/// A convolution in `G` groups of channels. PyTorch: `nn.Conv2d(C, O, K, S, P, D, groups=G)`.
#[neural_module]
pub struct GroupedConv2d<
    C: Axis,
    O: Axis,
    const G: u64,
    const K: u64,
    const S: u64 = 1,
    const P: u64 = 0,
    const D: u64 = 1,
> {
    /// `[O, C / G, K, K]`
    pub weight: Param<(O, Quot<C, Const<G>>, Const<K>, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<Quot<C, Const<G>>>(K * K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(GroupedConv2d
    [C: Axis, O: Axis, const G: u64, const K: u64, const S: u64, const P: u64, const D: u64]
    [C, O, G, K, S, P, D]);

#[neural_module]
impl<C: Axis, O: Axis, const G: u64, const K: u64, const S: u64, const P: u64, const D: u64>
    GroupedConv2d<C, O, G, K, S, P, D>
{
    /// `[Batch, C, H, W]` to `[Batch, O, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>]`.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, O, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>)> {
        x.conv2d_grouped(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution of each channel with its own filter. PyTorch: `nn.Conv2d(C, C, K, S, P, D,
/// groups=C)`.
#[neural_module]
pub struct DepthwiseConv2d<C: Axis, const K: u64, const S: u64 = 1, const P: u64 = 0, const D: u64 = 1> {
    /// `[C, 1, K, K]`
    pub weight: Param<(C, Const<1>, Const<K>, Const<K>)>,
    /// `[C]`
    #[default(Some(Param::new(bias_init::<Const<1>>(K * K))))]
    pub bias: Option<Param<(C,)>>,
}
layer!(DepthwiseConv2d [C: Axis, const K: u64, const S: u64, const P: u64, const D: u64] [C, K, S, P, D]);

#[neural_module]
impl<C: Axis, const K: u64, const S: u64, const P: u64, const D: u64> DepthwiseConv2d<C, K, S, P, D> {
    /// `[Batch, C, H, W]` to `[Batch, C, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>]`.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, C, Conv<H, K, S, P, D>, Conv<W, K, S, P, D>)> {
        x.conv2d_depthwise(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding)
    }
}

/// A convolution at stride 1 that keeps the axes. PyTorch: `nn.Conv2d(C, O, K, padding="same",
/// dilation=D)`.
#[neural_module]
pub struct SameConv2d<C: Axis, O: Axis, const K: u64, const D: u64 = 1> {
    /// `[O, C, K, K]`
    pub weight: Param<(O, C, Const<K>, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<C>(K * K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(SameConv2d [C: Axis, O: Axis, const K: u64, const D: u64] [C, O, K, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const D: u64> SameConv2d<C, O, K, D> {
    /// `[Batch, C, H, W]` to `[Batch, O, H, W]`.
    pub fn forward<B: Axis, H: Axis, W: Axis, E: Float>(&self, x: Tensor<(B, C, H, W), E>) -> Tensor<(B, O, H, W)> {
        x.conv2d_same(self.weight.get(), self.bias.as_ref().map(Param::get), Const::<D>)
    }
}
