//! Positional encodings: sinusoidal, learned, rotary, relative (T5) and linear biases (ALiBi).

use crate::graph::trace::{Handle, type_of};
use crate::graph::{DType, Dim, TensorType};
use crate::language::axis::Axis;
use crate::language::element::{Float, Indices};
use crate::module::param::Param;
use crate::neural_module;
use crate::ops::elementwise::{self as ew, BinaryKind, CompareKind, UnaryKind};
use crate::ops::rope::{Pairing, Rotary, rope, tables};
use crate::ops::{embedding, leaf, movement, reduce, slice};
use crate::tensor::Tensor;

/// Positions `start, start + 1, ..` along `T` as `[T]`; from 0 where no start is given.
pub(super) fn positions<T: Axis>(start: Option<Handle>) -> Handle {
    let from_zero = leaf::iota(0, &TensorType::new(vec![T::dim()], DType::I32));
    match start {
        None => from_zero,
        Some(start) => ew::add(from_zero, start),
    }
}

fn real(x: Handle) -> Handle {
    ew::cast(x, DType::F32)
}

/// Adds sines and cosines of the position, with wavelengths from `2 pi` to `20000 pi`, to
/// `[B, T, H]` (Vaswani et al. 2017): feature `2 i` gets `sin(t / 10000^(2 i / H))`, feature
/// `2 i + 1` the cosine. No parameters.
#[neural_module]
pub struct SinusoidalPositions;

impl SinusoidalPositions {
    /// The encodings `[T, H]`.
    pub fn table<T: Axis, H: Axis>(&self) -> Tensor<(T, H)> {
        let ty = TensorType::new(vec![T::dim(), H::dim()], DType::I32);
        let (position, feature) = (real(leaf::iota(0, &ty)), leaf::iota(1, &ty));
        let two = ew::constant_like(feature, 2.0);
        let odd = ew::binary(BinaryKind::Rem, feature, two);
        let pair = real(ew::sub(feature, odd));
        let exponent = ew::div(ew::scale(pair, -(10_000f64.ln())), leaf::size(H::extent()));
        let angle = ew::mul(position, ew::exp(exponent));
        let is_odd = ew::compare(CompareKind::Eq, odd, ew::constant_like(odd, 1.0));
        Tensor::from_raw(ew::select(is_odd, ew::unary(UnaryKind::Cos, angle), ew::unary(UnaryKind::Sin, angle)))
    }
}

#[neural_module]
impl SinusoidalPositions {
    /// `[B, T, H]` to the same.
    pub fn forward<B: Axis, T: Axis, H: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        Tensor::from_raw(ew::add(x.raw(), self.table::<T, H>().raw()))
    }
}

/// Adds a learned vector for each of at most `M` positions to `[B, T, H]` (GPT-2, BERT). The weight
/// is `[M, H]` and starts normal with deviation 0.02. A text longer than `M` is an error when sizes
/// are bound. PyTorch: `nn.Embedding(M, H)(torch.arange(t))`.
#[neural_module]
pub struct LearnedPositions<M: Axis, H: Axis> {
    /// `[M, H]`
    #[init(normal(0.02))]
    pub weight: Param<(M, H)>,
}

#[neural_module]
impl<M: Axis, H: Axis> LearnedPositions<M, H> {
    /// `[B, T, H]` to the same, positions counted from 0.
    pub fn forward<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        let rows = slice::slice(self.weight.get().raw(), 0, crate::graph::Extent::constant(0), 1, T::dim());
        Tensor::from_raw(ew::add(x.raw(), rows))
    }

    /// The same with positions counted from `start`, for decoding step by step.
    pub fn at<B: Axis, T: Axis, E: Float, I: Indices>(
        &self,
        x: Tensor<(B, T, H), E>,
        start: Tensor<(), I>,
    ) -> Tensor<(B, T, H)> {
        let rows = embedding::embedding(self.weight.get().raw(), positions::<T>(Some(start.raw())));
        Tensor::from_raw(ew::add(x.raw(), rows))
    }
}

/// Rotary embedding of heads `[B, T, N, D]` (Su et al. 2021), for models that rotate by hand;
/// [`SelfAttention`](super::SelfAttention) has it built in. No parameters.
#[neural_module]
pub struct RotaryEmbedding {
    /// Base, part and scaling of the frequencies.
    #[hyper]
    pub rotary: Rotary,
    /// Which features rotate together.
    #[hyper]
    pub pairing: Pairing,
}

#[neural_module]
impl RotaryEmbedding {
    /// `[B, T, N, D]` to the same, positions counted from 0.
    pub fn forward<B: Axis, T: Axis, N: Axis, D: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, N, D), E>,
    ) -> Tensor<(B, T, N, D)> {
        self.rotate(x.raw(), positions::<T>(None), &[1], &D::dim())
    }

    /// The same with a position for each place.
    pub fn at<B: Axis, T: Axis, N: Axis, D: Axis, E: Float, I: Indices>(
        &self,
        x: Tensor<(B, T, N, D), E>,
        positions: Tensor<(B, T), I>,
    ) -> Tensor<(B, T, N, D)> {
        self.rotate(x.raw(), positions.raw(), &[0, 1], &D::dim())
    }
}

impl RotaryEmbedding {
    fn rotate<S>(&self, x: Handle, positions: Handle, axes: &[usize], features: &Dim) -> Tensor<S> {
        let tables = tables(&self.rotary, positions, &features.extent);
        Tensor::from_raw(rope(x, tables, self.pairing, axes))
    }
}

/// The distance of keys from queries, `[T, S]`: negative for earlier keys. Queries are the last
/// positions.
fn distances<T: Axis, S: Axis>() -> Handle {
    let ty = TensorType::new(vec![T::dim(), S::dim()], DType::I32);
    let offset = ew::sub(leaf::index(S::extent()), leaf::index(T::extent()));
    ew::sub(leaf::iota(1, &ty), ew::add(leaf::iota(0, &ty), offset))
}

/// `[T, S]` repeated for each head and `[N]` for each place, both as `[N, T, S]`.
fn per_head(places: Handle, heads: Handle) -> (Handle, Handle) {
    let mut dims = type_of(heads).dims;
    dims.extend(type_of(places).dims);
    (movement::broadcast(places, dims.clone()), reduce::restore(heads, &dims, &[1, 2]))
}

/// A learned bias per head for each bucket of distances (T5, Raffel et al. 2020): near distances
/// have buckets of their own, far ones share buckets that grow with the logarithm. Shared by the
/// layers of a model; given to attention as `.bias(relative.bias())`.
///
/// The weight is `[K, N]` for `K` buckets and `N` heads, as Hugging Face's
/// `relative_attention_bias`.
#[neural_module]
pub struct RelativeBias<K: Axis, N: Axis> {
    /// `[K, N]`
    #[init(normal(1.0))]
    pub weight: Param<(K, N)>,
    /// Whether later keys have buckets of their own (encoders); otherwise they share that of
    /// distance 0 (decoders).
    #[default(true)]
    pub bidirectional: bool,
    /// The distance from which on all are one bucket.
    #[default(128)]
    pub max_distance: u32,
}

impl<K: Axis, N: Axis> RelativeBias<K, N> {
    /// For a decoder: later keys have no buckets.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.bidirectional = false;
        self
    }

    /// The bucket of each distance of a key from a query.
    fn buckets(&self, distance: Handle) -> Handle {
        let whole = |v: f64| ew::constant_like(distance, v);
        let mut count = ew::cast(leaf::size(K::extent()), DType::I32);
        let mut first = whole(0.0);
        let far = if self.bidirectional {
            count = ew::div(count, whole(2.0));
            let later = ew::compare(CompareKind::Gt, distance, whole(0.0));
            first = ew::select(later, count, first);
            ew::unary(UnaryKind::Abs, distance)
        } else {
            ew::maximum(ew::neg(distance), whole(0.0))
        };
        let exact = ew::div(count, whole(2.0));
        // exact + log(far / exact) / log(max / exact) * (count - exact), where far is at least 1;
        // whole results are not missed by rounding.
        let log = |x| ew::unary(UnaryKind::Log, x);
        let ratio = ew::div(real(ew::maximum(far, whole(1.0))), real(exact));
        let span = log(ew::div(leaf::scalar(self.max_distance as f64), real(exact)));
        let steps = ew::mul(ew::div(log(ratio), span), real(ew::sub(count, exact)));
        let steps = ew::cast(ew::add(steps, leaf::scalar(2e-6)), DType::I32);
        let last = ew::sub(count, whole(1.0));
        let shared = ew::minimum(ew::add(steps, exact), last);
        let near = ew::compare(CompareKind::Lt, far, exact);
        ew::add(ew::select(near, far, shared), first)
    }

    /// The bias `[N, T, S]` of `T` queries, the last positions, and `S` keys.
    pub fn bias<T: Axis, S: Axis>(&self) -> Tensor<(N, T, S)> {
        let rows = embedding::embedding(self.weight.get().raw(), self.buckets(distances::<T, S>()));
        Tensor::from_raw(movement::permute(rows, &[2, 0, 1]))
    }

    /// The bias `[B, N, T, S]` of queries at these positions and keys `0, 1, ..` of a cache.
    pub fn bias_at<B: Axis, T: Axis, S: Axis, I: Indices>(&self, queries: Tensor<(B, T), I>) -> Tensor<(B, N, T, S)> {
        let ty = TensorType::new(vec![B::dim(), T::dim(), S::dim()], DType::I32);
        let distance = ew::sub(leaf::iota(2, &ty), reduce::restore(queries.raw(), &ty.dims, &[2]));
        let rows = embedding::embedding(self.weight.get().raw(), self.buckets(distance));
        Tensor::from_raw(movement::permute(rows, &[0, 3, 1, 2]))
    }
}

/// A bias that falls linearly with the distance, with a slope of its own for each of `N` heads
/// (ALiBi, Press et al. 2022): `-slope * |i - j|`. For 8 heads the slopes are `1/2, 1/4, .. 1/256`.
/// No parameters; given to attention as `.bias(AlibiBias.bias())`.
#[neural_module]
pub struct AlibiBias;

impl AlibiBias {
    /// The slopes `[N]`. For a number of heads that is no power of two, as the paper's code has it:
    /// those of the next smaller power, then every other one of the next larger.
    pub fn slopes<N: Axis>(&self) -> Tensor<(N,)> {
        let ln2 = std::f64::consts::LN_2;
        let n = leaf::size(N::extent());
        let log2 = ew::unary(
            UnaryKind::Floor,
            ew::add(ew::scale(ew::unary(UnaryKind::Log, n), 1.0 / ln2), leaf::scalar(1e-5)),
        );
        let power = ew::unary(UnaryKind::Round, ew::exp(ew::scale(log2, ln2)));
        let head = real(leaf::iota(0, &TensorType::new(vec![N::dim()], DType::I32)));
        let one = leaf::scalar(1.0);
        let regular = ew::div(ew::scale(ew::add(head, one), -8.0), power);
        let rest = ew::add(ew::scale(ew::sub(head, power), 2.0), one);
        let between = ew::div(ew::scale(rest, -4.0), power);
        let exponent = ew::select(ew::compare(CompareKind::Lt, head, power), regular, between);
        Tensor::from_raw(ew::exp(ew::scale(exponent, ln2)))
    }

    /// The bias `[N, T, S]` of `T` queries, the last positions, and `S` keys.
    pub fn bias<N: Axis, T: Axis, S: Axis>(&self) -> Tensor<(N, T, S)> {
        let far = real(ew::unary(UnaryKind::Abs, distances::<T, S>()));
        let (far, slopes) = per_head(far, self.slopes::<N>().raw());
        Tensor::from_raw(ew::neg(ew::mul(far, slopes)))
    }
}
