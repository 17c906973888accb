//! Fewer frames before the first layer: convolutions of 3 by 3 at stride 2, as NeMo's
//! `ConvSubsampling` with `striding` and `dw_striding`. What needs no convolutions is [`super::stacking`].
//!
//! Each halves the frames and the bands. The first makes channels of the features; the others mix them
//! (`striding`), or filter each channel by itself and then mix (`dw_striding`: Rekesh et al. 2023,
//! <https://arxiv.org/abs/2305.05084>). Frames behind a recording's end are zeros to each of them. With
//! `causal_downsampling` there are two zeros before and one behind, so that nothing later is seen.

use super::axes::{ConformerAxes, Rate};
use super::mask::masked;
use super::pass::{Flow, Pass, Past};
use super::settings::{Settings, Subsampling};
use crate::audio::Batch;
use mobilis_runtime::graph::trace::{self, Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::nn::Linear;
use mobilis_runtime::ops::conv::{Geometry, conv};
use mobilis_runtime::ops::elementwise::{self as ew, activation::relu};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{contraction, leaf, movement, slice};
use mobilis_runtime::prelude::*;

/// A convolution over frames and bands.
#[neural_module(no_default)]
pub struct Filter<O: Axis, I: Axis, K: Axis> {
    /// `[O, I, K, K]`
    pub weight: Param<(O, I, K, K)>,
    /// `[O]`
    pub bias: Param<(O,)>,
}

impl<O: Axis, I: Axis, K: Axis> Filter<O, I, K> {
    fn new() -> Self {
        Filter { weight: Param::default(), bias: Param::default() }
    }

    fn apply(&self, x: Handle, geometry: &Geometry) -> Handle {
        let _scope = trace::scope(self);
        conv(x, self.weight.get().raw(), Some(self.bias.get().raw()), geometry)
    }
}

impl<O: Axis, I: Axis> Filter<O, I, Const<1>> {
    /// A convolution that looks at one place, as a product whose rows are the places of all streams: of a
    /// convolution's the places of each are apart, and may be so few that they are summed in another order.
    fn linear(&self, x: Handle) -> Handle {
        let _scope = trace::scope(self);
        let weight = movement::reshape(self.weight.get().raw(), vec![O::dim(), I::dim()]);
        let y = contraction::linear(movement::permute(x, &[0, 2, 3, 1]), weight);
        movement::permute(ew::add(y, self.bias.get().raw()), &[0, 3, 1, 2])
    }
}

/// One of the later convolutions.
pub enum Halving<A: ConformerAxes> {
    /// `[Channels, Channels, 3, 3]`
    Full(Filter<A::Channels, A::Channels, Const<3>>),
    /// `[Channels, 1, 3, 3]`, then `[Channels, Channels, 1, 1]`.
    Separable(Filter<A::Channels, Const<1>, Const<3>>, Filter<A::Channels, A::Channels, Const<1>>),
}

/// What comes out, side by side.
type Bands<A, R> = Prod<<A as ConformerAxes>::Channels, <R as Rate>::Subsampled<<A as ConformerAxes>::Mels>>;

/// All of them, and the layer that makes the stream of what comes out.
pub struct ConvSubsampling<A: ConformerAxes, R: Rate> {
    /// `[Channels, 1, 3, 3]`
    pub first: Filter<A::Channels, Const<1>, Const<3>>,
    /// Those behind it.
    pub rest: Vec<Halving<A>>,
    /// `[Hidden, Channels * bands]`
    pub out: Linear<Bands<A, R>, A::Hidden>,
}

/// By NeMo's names: an activation takes a number behind each convolution.
impl<A: ConformerAxes, R: Rate> Module for ConvSubsampling<A, R> {
    fn kind(&self) -> &'static str {
        "ConvSubsampling"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("conv.0", &self.first);
        let mut number = 2;
        for halving in &self.rest {
            match halving {
                Halving::Full(filter) => visitor.module(&format!("conv.{number}"), filter),
                Halving::Separable(depthwise, pointwise) => {
                    visitor.module(&format!("conv.{number}"), depthwise);
                    number += 1;
                    visitor.module(&format!("conv.{number}"), pointwise);
                }
            }
            number += 2;
        }
        visitor.module("out", &self.out);
    }
}

impl<A: ConformerAxes, R: Rate> ConvSubsampling<A, R> {
    /// The convolutions of an encoder.
    pub(super) fn new(settings: &Settings) -> Self {
        let halving = |_| match settings.subsampling {
            Subsampling::DwStriding => Halving::Separable(Filter::new(), Filter::new()),
            _ => Halving::Full(Filter::new()),
        };
        ConvSubsampling { first: Filter::new(), rest: (1..R::HALVINGS).map(halving).collect(), out: Linear::default() }
    }

    /// How many frames come out for `n` that go in, `[Batch]`.
    pub(super) fn lengths(n: Handle) -> Handle {
        (0..R::HALVINGS).fold(n, |n, _| halved(n, R::CAUSAL))
    }

    /// `[Batch, F, Mels]`, of which the first `counts` frames count, to the stream `[Batch, T, Hidden]`
    /// with `T` the axis `F` at this rate.
    pub(super) fn apply<F: Axis, T: Axis>(
        &self,
        x: Tensor<(Batch, F, A::Mels)>,
        counts: Handle,
        pass: Option<&Pass>,
    ) -> Tensor<(Batch, T, A::Hidden)> {
        let _scope = trace::scope(self);
        let dims = type_of(x.raw()).dims;
        let planes = vec![dims[0].clone(), Dim::fixed(1), dims[1].clone(), dims[2].clone()];
        let mut x = movement::reshape(x.raw(), planes);
        let mut counts = counts;
        let padding = if R::CAUSAL { [2, 1] } else { [1, 1] };
        let mut halve = |x: Handle, groups: Extent, i: usize, apply: &dyn Fn(Handle, &Geometry) -> Handle| {
            let mut geometry = Geometry { padding: vec![padding; 2], ..Geometry::square(2, 2, 0, 1) }.grouped(groups);
            let mut x = masked(x, counts, 2);
            if let Some(Flow::Stream(stream)) = pass.map(|p| &p.flow) {
                // A stream's beginning is what came before; what is behind comes with the next part.
                geometry.padding[0] = [0, 0];
                let name = format!("subsampling.{i}");
                x = match i {
                    0 => stream.behind::<(Batch, Const<1>, Past, A::Mels)>(&name, x, 2),
                    1 => stream
                        .behind::<(Batch, A::Channels, Past, <CausalOnce as Rate>::Subsampled<A::Mels>)>(&name, x, 2),
                    2 => stream
                        .behind::<(Batch, A::Channels, Past, <CausalTwice as Rate>::Subsampled<A::Mels>)>(&name, x, 2),
                    _ => stream
                        .behind::<(Batch, A::Channels, Past, <CausalThrice as Rate>::Subsampled<A::Mels>)>(&name, x, 2),
                };
            }
            counts = halved(counts, R::CAUSAL);
            apply(x, &geometry)
        };
        let one = || Extent::constant(1);
        x = relu(halve(x, one(), 0, &|x, g| self.first.apply(x, g)));
        for (i, halving) in self.rest.iter().enumerate() {
            x = relu(match halving {
                Halving::Full(filter) => halve(x, one(), i + 1, &|x, g| filter.apply(x, g)),
                Halving::Separable(depthwise, pointwise) => {
                    let x = halve(x, A::Channels::extent(), i + 1, &|x, g| depthwise.apply(x, g));
                    let stream = pass.is_some_and(|p| matches!(p.flow, Flow::Stream(_)));
                    if stream { pointwise.linear(x) } else { pointwise.apply(x, &Geometry::square(2, 1, 0, 1)) }
                }
            });
        }
        let x = movement::permute(masked(x, counts, 2), &[0, 2, 1, 3]);
        let flat = vec![dims[0].clone(), T::dim(), <Bands<A, R>>::dim()];
        self.out.forward(Tensor::<(Batch, T, Bands<A, R>)>::from_raw(movement::reshape(x, flat)))
    }
}

type CausalOnce = super::axes::CausallyHalved<super::axes::Same>;
type CausalTwice = super::axes::CausallyHalved<CausalOnce>;
type CausalThrice = super::axes::CausallyHalved<CausalTwice>;

/// Every frame halved once more between layers: NeMo's `SubsamplingReductionModule` of factor 2.
pub enum Reducing<A: ConformerAxes> {
    /// The larger of two frames; one without a second is left out.
    Pooling,
    /// A convolution as above, over the width as it was over bands.
    Striding {
        /// `[Hidden, 1, 3, 3]`
        filter: Filter<A::Hidden, Const<1>, Const<3>>,
        /// `[Hidden, Hidden * half]`
        out: Linear<Prod<A::Hidden, Half<A>>, A::Hidden>,
    },
}

/// Half of the width.
type Half<A> = Conv<<A as ConformerAxes>::Hidden, 3, 2, 1>;

impl<A: ConformerAxes> Module for Reducing<A> {
    fn kind(&self) -> &'static str {
        "SubsamplingReduction"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        if let Reducing::Striding { filter, out } = self {
            visitor.module("reduction_enc.conv.0", filter);
            visitor.module("reduction_enc.out", out);
        }
    }
}

impl<A: ConformerAxes> Reducing<A> {
    pub(super) fn new(pooling: bool) -> Self {
        match pooling {
            true => Reducing::Pooling,
            false => Reducing::Striding { filter: Filter::new(), out: Linear::default() },
        }
    }

    /// How many frames come out for `n` that go in, `[Batch]`.
    pub(super) fn lengths(&self, n: Handle) -> Handle {
        match self {
            Reducing::Pooling => whole_parts(n, leaf::fill(2.0, type_of(n))),
            Reducing::Striding { .. } => halved(n, false),
        }
    }

    /// `[Batch, T, Hidden]`, of which the first `counts` frames count, to half as many frames `U`.
    pub(super) fn apply<T: Axis, U: Axis>(
        &self,
        x: Tensor<(Batch, T, A::Hidden)>,
        counts: Handle,
    ) -> Tensor<(Batch, U, A::Hidden)> {
        let _scope = trace::scope(self);
        let dims = type_of(x.raw()).dims;
        let [batch, time, width] = [dims[0].clone(), dims[1].clone(), dims[2].clone()];
        let one = || Dim::fixed(1);
        match self {
            Reducing::Pooling => {
                // An odd number of frames gets one more, which no frame that counts is made of.
                let two = || Extent::constant(2);
                let long = Extent::mul(U::extent(), two());
                let missing = Extent::sub(long.clone(), time.extent.clone());
                let x = pad_zeros(x.raw(), 1, Extent::constant(0), missing, Dim::anonymous(long));
                let pairs = movement::reshape(x, vec![batch.clone(), U::dim(), Dim::fixed(2), width.clone()]);
                let each = |i| slice::slice(pairs, 2, Extent::constant(i), 1, one());
                let larger = ew::maximum(each(0), each(1));
                Tensor::from_raw(movement::reshape(larger, vec![batch, U::dim(), width]))
            }
            Reducing::Striding { filter, out } => {
                let planes = vec![batch.clone(), one(), time, width];
                let x = masked(movement::reshape(x.raw(), planes), counts, 2);
                let geometry = Geometry { padding: vec![[1, 1]; 2], ..Geometry::square(2, 2, 0, 1) };
                let x = relu(filter.apply(x, &geometry));
                let x = movement::permute(masked(x, halved(counts, false), 2), &[0, 2, 1, 3]);
                let flat = vec![batch, U::dim(), <Prod<A::Hidden, Half<A>>>::dim()];
                out.forward(Tensor::<(Batch, U, Prod<A::Hidden, Half<A>>)>::from_raw(movement::reshape(x, flat)))
            }
        }
    }
}

/// `floor(n / size)`: how many whole parts of a size there are.
pub(super) fn whole_parts(n: Handle, size: Handle) -> Handle {
    ew::div(ew::sub(n, ew::binary(ew::BinaryKind::Rem, n, size)), size)
}

/// `ceil(n / 2)`, or causally `floor(n / 2) + 1`: the length behind one convolution.
fn halved(n: Handle, causal: bool) -> Handle {
    let one = |like: Handle| leaf::fill(1.0, type_of(like));
    let whole = if causal { n } else { ew::add(n, one(n)) };
    let half = whole_parts(whole, leaf::fill(2.0, type_of(n)));
    if causal { ew::add(half, one(n)) } else { half }
}
