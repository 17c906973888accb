//! What Mamba and Mamba-2 share: blocks without attention, and a short causal convolution whose
//! window is carried from call to call.
//!
//! As Hugging Face's `modeling_mamba.py` and `modeling_mamba2.py`, whose names these are.

use super::block::{Layer, Stream};
use super::{Batch, CausalLm, Context, Ids, Time};
use mobilis_runtime::graph::Dim;
use mobilis_runtime::graph::trace::type_of;
use mobilis_runtime::language::axis::{Prod, Sum};
use mobilis_runtime::nn::{Embedding, Linear, RmsNorm};
use mobilis_runtime::ops::conv::{Geometry, conv_to};
use mobilis_runtime::ops::elementwise as ew;
use mobilis_runtime::ops::{embedding, leaf, movement, reduce};
use mobilis_runtime::prelude::*;

/// A causal convolution of each channel with its own filter over a position and the `W` before it.
/// PyTorch: `nn.Conv1d(C, C, W + 1, groups=C, padding=W)(x)[..., :t]`.
#[neural_module]
pub struct WindowConv<C: Axis, W: Axis> {
    /// `[C, 1, W + 1]`
    pub weight: Param<(C, Const<1>, Sum<W, Const<1>>)>,
    /// `[C]`
    #[default(Some(Param::default()))]
    pub bias: Option<Param<(C,)>>,
}

#[neural_module]
impl<C: Axis, W: Axis> WindowConv<C, W> {
    /// `[Batch, Time, C]` to the same. Over caches the window goes on where the last call ended.
    pub fn forward(&self, x: Stream<C>, cx: &Context) -> Stream<C> {
        let carried = cx.carried::<(Batch, W, C)>("window");
        let before = carried.as_ref().map_or_else(Tensor::zeros, |c| c.value);
        let all: Tensor<(Batch, Sum<W, Time>, C)> = before.concat(W::AXIS, x, Time);
        if let (Some(carried), Some(count)) = (carried, cx.count()) {
            carried.set(Self::last(all, count));
        }
        let channels_first = movement::permute(all.raw(), &[0, 2, 1]);
        let geometry = Geometry::square(1, 1, 0, 1).grouped(C::extent());
        let dims = vec![Batch::dim(), C::dim(), Time::dim()];
        let bias = self.bias.as_ref().map(|b| b.get().raw());
        let y = conv_to(channels_first, self.weight.get().raw(), bias, &geometry, dims);
        Tensor::from_raw(movement::permute(y, &[0, 2, 1]))
    }
}

impl<C: Axis, W: Axis> WindowConv<C, W> {
    /// The last `W` positions of the window and the tokens that count.
    fn last(all: Tensor<(Batch, Sum<W, Time>, C)>, count: super::context::PerRow) -> Tensor<(Batch, W, C)> {
        let ty = Tensor::<(Batch, W), Index>::type_of();
        let row = ew::mul(leaf::iota(0, &ty), leaf::index(<Sum<W, Time>>::extent()));
        let from = reduce::restore(count.raw(), &ty.dims, &[1]);
        let at = ew::add(ew::add(row, from), leaf::iota(1, &ty));
        let merged = Dim::anonymous(<Prod<Batch, Sum<W, Time>>>::extent());
        let rows = movement::reshape(all.raw(), vec![merged, C::dim()]);
        Tensor::from_raw(embedding::embedding(rows, at))
    }
}

/// A mixer behind a norm and beside a residual: `x + mixer(norm(x))`.
#[neural_module(no_default)]
pub struct MixerBlock<H: Axis, M: Layer<H>> {
    /// The norm.
    pub norm: RmsNorm<H>,
    /// What mixes positions.
    pub mixer: M,
}

#[neural_module]
impl<H: Axis, M: Layer<H>> MixerBlock<H, M> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        x + self.mixer.apply(self.norm.forward(x), cx)
    }
}

/// An embedding, blocks, and a norm.
#[neural_module(no_default)]
pub struct Backbone<V: Axis, H: Axis, M: Layer<H>> {
    /// `[V, H]`
    pub embeddings: Embedding<V, H>,
    /// The blocks, in order.
    pub layers: Vec<MixerBlock<H, M>>,
    /// The norm after the last.
    pub norm_f: RmsNorm<H>,
}

#[neural_module]
impl<V: Axis, H: Axis, M: Layer<H>> Backbone<V, H, M> {
    /// The stream after the norm. The streams that are noted begin after the first block.
    pub fn forward(&self, ids: Ids, cx: &Context) -> Stream<H> {
        let mut x = self.embeddings.forward(ids);
        for (i, layer) in self.layers.iter().enumerate() {
            x = cx.note(layer.forward(x, &cx.layer(i)));
        }
        cx.note(self.norm_f.forward(x))
    }
}

/// A [`Backbone`] with a head, which is the embedding's table where there is none of its own.
#[neural_module(no_default)]
pub struct MambaLm<V: Axis, H: Axis, M: Layer<H>> {
    /// All but the head.
    pub backbone: Backbone<V, H, M>,
    /// `[V, H]`; the embedding's table where it is tied.
    pub lm_head: Option<Linear<H, V>>,
}

impl<V: Axis, H: Axis, M: Layer<H>> MambaLm<V, H, M> {
    /// A model of these mixers.
    pub fn new(mixers: Vec<M>, eps: f64, tied: bool) -> Self {
        let norm = || RmsNorm::default().eps(eps);
        let layers = mixers.into_iter().map(|mixer| MixerBlock { norm: norm(), mixer }).collect();
        let backbone = Backbone { embeddings: Embedding::default(), layers, norm_f: norm() };
        MambaLm { backbone, lm_head: (!tied).then(|| Linear::default().no_bias()) }
    }
}

impl<V: Axis, H: Axis, M: Layer<H> + 'static> CausalLm for MambaLm<V, H, M> {
    type Hidden = H;
    type Vocab = V;

    fn stream(&self, ids: Ids, cx: &Context) -> Stream<H> {
        self.backbone.forward(ids, cx)
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, H)>) -> Tensor<(Batch, T, V)> {
        match &self.lm_head {
            Some(head) => head.forward(x),
            None => self.backbone.embeddings.attend(x),
        }
    }
}

/// `x` scaled head by head: `x[b, t, h, p] * by[h]`.
pub fn per_head<N: Axis, P: Axis>(x: Tensor<(Batch, Time, N, P)>, by: Tensor<(N,)>) -> Tensor<(Batch, Time, N, P)> {
    let by = reduce::restore(by.raw(), &type_of(x.raw()).dims, &[0, 1, 3]);
    Tensor::from_raw(ew::mul(x.raw(), by))
}
