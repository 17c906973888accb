//! Transposed convolutions: layers that undo the lengths of strided ones (Zeiler et al. 2010).

use super::conv::{bias_init, layer};
use crate::language::axis::{Axis, Const};
use crate::language::element::Float;
use crate::language::window::ConvTranspose;
use crate::module::init::{Init, WithInit};
use crate::ops::conv::Sliding;
use crate::tensor::Tensor;
use crate::{Param, neural_module};

/// A transposed convolution from `C` to `O` channels with output padding `Q`. PyTorch:
/// `nn.ConvTranspose1d(C, O, K, S, P, Q, dilation=D)`; the weight is `[in, out, kernel]`, whose
/// fan is taken over the outputs as there.
#[neural_module]
pub struct ConvTranspose1d<
    C: Axis,
    O: Axis,
    const K: u64,
    const S: u64 = 1,
    const P: u64 = 0,
    const Q: u64 = 0,
    const D: u64 = 1,
> {
    /// `[C, O, K]`
    pub weight: Param<(C, O, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<O>(K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(ConvTranspose1d
    [C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const Q: u64, const D: u64]
    [C, O, K, S, P, Q, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const Q: u64, const D: u64>
    ConvTranspose1d<C, O, K, S, P, Q, D>
{
    /// `[Batch, C, L]` to `[Batch, O, ConvTranspose<L, K, S, P, D, Q>]`.
    pub fn forward<B: Axis, L: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, L), E>,
    ) -> Tensor<(B, O, ConvTranspose<L, K, S, P, D, Q>)> {
        x.conv_transpose1d(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding::<S, P, D>, Const::<Q>)
    }
}

/// A transposed convolution over planes with a square kernel. PyTorch: `nn.ConvTranspose2d(C, O,
/// K, S, P, Q, dilation=D)`.
#[neural_module]
pub struct ConvTranspose2d<
    C: Axis,
    O: Axis,
    const K: u64,
    const S: u64 = 1,
    const P: u64 = 0,
    const Q: u64 = 0,
    const D: u64 = 1,
> {
    /// `[C, O, K, K]`
    pub weight: Param<(C, O, Const<K>, Const<K>)>,
    /// `[O]`
    #[default(Some(Param::new(bias_init::<O>(K * K))))]
    pub bias: Option<Param<(O,)>>,
}
layer!(ConvTranspose2d
    [C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const Q: u64, const D: u64]
    [C, O, K, S, P, Q, D]);

#[neural_module]
impl<C: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const Q: u64, const D: u64>
    ConvTranspose2d<C, O, K, S, P, Q, D>
{
    /// `[Batch, C, H, W]` to the planes of [`ConvTranspose`] lengths.
    #[allow(clippy::type_complexity)]
    pub fn forward<B: Axis, H: Axis, W: Axis, E: Float>(
        &self,
        x: Tensor<(B, C, H, W), E>,
    ) -> Tensor<(B, O, ConvTranspose<H, K, S, P, D, Q>, ConvTranspose<W, K, S, P, D, Q>)> {
        x.conv_transpose2d(self.weight.get(), self.bias.as_ref().map(Param::get), Sliding::<S, P, D>, Const::<Q>)
    }
}
