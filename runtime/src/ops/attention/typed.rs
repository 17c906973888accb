//! The typed face of attention: a builder, so that options read as words.

use super::{Dropout, Extras, Settings, attend};
use crate::graph::trace::{self, Handle, Mode};
use crate::language::axis::{Axis, Prod};
use crate::language::element::{Element, Float, Indices, Mask, Real};
use crate::language::shape::{At, Shape};
use crate::tensor::Tensor;
use std::marker::PhantomData;

/// Attention that is being set up; [`Attending::output`] builds it. `Q` is the shape of the
/// result, `L` the shape of the log-sum-exp, and `B`, `H`, `T`, `S` are the axes of the scores.
#[must_use = "attention is built by `.output()`"]
pub struct Attending<Q, L, B, H, T, S> {
    inputs: [Handle; 3],
    settings: Settings,
    extras: Extras<Handle>,
    #[allow(clippy::type_complexity)]
    shapes: PhantomData<fn() -> (Q, L, B, H, T, S)>,
}

/// A mask over some of the axes of the scores `[batch, heads, queries, keys]`, in this order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a mask for scores over batch `{B}`, heads `{H}`, queries `{T}` and keys `{S}`",
    label = "a mask has the shape [keys], [queries, keys], [batch, keys], [batch, queries, keys], [heads, queries, keys] or all four"
)]
pub trait MaskOver<B, H, T, S, P> {
    /// Which of `[batch, heads, queries, keys]` each dimension is.
    const AXES: &'static [u8];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<0>> for (S,) {
    const AXES: &'static [u8] = &[3];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<1>> for (T, S) {
    const AXES: &'static [u8] = &[2, 3];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<2>> for (B, S) {
    const AXES: &'static [u8] = &[0, 3];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<3>> for (B, T, S) {
    const AXES: &'static [u8] = &[0, 2, 3];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<4>> for (H, T, S) {
    const AXES: &'static [u8] = &[1, 2, 3];
}
impl<B: Axis, H: Axis, T: Axis, S: Axis> MaskOver<B, H, T, S, At<5>> for (B, H, T, S) {
    const AXES: &'static [u8] = &[0, 1, 2, 3];
}

/// Attention of queries `q [B, T, H, D]` over keys `k [B, S, H, D]` and values `v [B, S, H, V]`:
/// `softmax(q k^T / sqrt(D)) v`, `[B, T, H, V]`.
///
/// `attention(q, k, v).causal().output()`; the module has [an example](super).
///
/// PyTorch: `F.scaled_dot_product_attention(q, k, v)` with heads in front of time.
#[allow(clippy::type_complexity)]
pub fn attention<B: Axis, T: Axis, S: Axis, H: Axis, D: Axis, V: Axis, E: Float, F: Float, G: Float>(
    q: Tensor<(B, T, H, D), E>,
    k: Tensor<(B, S, H, D), F>,
    v: Tensor<(B, S, H, V), G>,
) -> Attending<(B, T, H, V), (B, H, T), B, H, T, S> {
    Attending::new(q.raw(), k.raw(), v.raw())
}

/// Attention with grouped queries: `G` query heads read each of `K` key-value heads.
/// `q [B, T, K, G, D]`, `k [B, S, K, D]`, `v [B, S, K, V]` give `[B, T, K, G, V]`. Masks per head
/// have the axis `Prod<K, G>`. PyTorch: `F.scaled_dot_product_attention(.., enable_gqa=True)`.
#[allow(clippy::type_complexity)]
pub fn grouped_attention<
    B: Axis,
    T: Axis,
    S: Axis,
    K: Axis,
    G: Axis,
    D: Axis,
    V: Axis,
    E1: Float,
    E2: Float,
    E3: Float,
>(
    q: Tensor<(B, T, K, G, D), E1>,
    k: Tensor<(B, S, K, D), E2>,
    v: Tensor<(B, S, K, V), E3>,
) -> Attending<(B, T, K, G, V), (B, K, G, T), B, Prod<K, G>, T, S> {
    Attending::new(q.raw(), k.raw(), v.raw())
}

impl<Q: Shape, L: Shape, B: Axis, H: Axis, T: Axis, S: Axis> Attending<Q, L, B, H, T, S> {
    fn new(q: Handle, k: Handle, v: Handle) -> Self {
        let (settings, extras) = (Settings::default(), Extras::default());
        Attending { inputs: [q, k, v], settings, extras, shapes: PhantomData }
    }

    /// Queries see no later key. Where there are more keys than queries, the queries are the last
    /// positions: query `i` sees keys up to `S - T + i`.
    pub fn causal(mut self) -> Self {
        self.settings.causal = true;
        self
    }

    /// Queries see the nearest `window` positions, their own included (Mistral's
    /// `sliding_window`); without [`causal`](Self::causal), as many after them.
    pub fn window(mut self, window: impl Into<Option<u64>>) -> Self {
        self.settings.window = window.into();
        self
    }

    /// The factor on scores instead of `1 / sqrt(D)`.
    pub fn scale(mut self, scale: impl Into<Option<f64>>) -> Self {
        self.settings.scale = scale.into();
        self
    }

    /// Bounds scores smoothly: `cap * tanh(score / cap)` (Gemma 2's `attn_logit_softcapping`).
    pub fn soft_cap(mut self, cap: impl Into<Option<f64>>) -> Self {
        self.settings.soft_cap = cap.into();
        self
    }

    /// Only the first `lengths[b]` keys of an example are visible.
    pub fn lengths<E: Indices>(mut self, lengths: Tensor<(B,), E>) -> Self {
        self.extras.lengths = Some(lengths.raw());
        self
    }

    /// The position of the first query among the keys, instead of `S - T`: for caches that are
    /// longer than what they hold.
    pub fn offset<E: Indices>(mut self, offset: Tensor<(), E>) -> Self {
        self.extras.offset = Some(offset.raw());
        self
    }

    /// The position of each example's first query among the keys.
    pub fn offsets<E: Indices>(mut self, offsets: Tensor<(B,), E>) -> Self {
        self.extras.offset = Some(offsets.raw());
        self
    }

    /// Only keys where the mask is true are visible.
    pub fn mask<M: Shape + MaskOver<B, H, T, S, P>, P, E: Element<Base = Mask>>(mut self, mask: Tensor<M, E>) -> Self {
        self.extras.mask = Some((mask.raw(), M::AXES.to_vec()));
        self
    }

    /// A mask that is added to the scores: 0 or minus infinity, or a bias by distance. Gradients
    /// flow into it. A boolean mask given before is replaced.
    pub fn bias<M: Shape + MaskOver<B, H, T, S, P>, P, E: Element<Base = Real>>(mut self, bias: Tensor<M, E>) -> Self {
        self.extras.mask = Some((bias.raw(), M::AXES.to_vec()));
        self
    }

    /// Drops each weight with this probability when the model is traced for training, and has the
    /// others grow by `1 / (1 - probability)`.
    pub fn dropout(mut self, probability: f64) -> Self {
        if !(0.0..1.0).contains(&probability) {
            trace::fail(format!("attention: a dropout of {probability} does not lie in 0 to 1 (excluded)"));
        } else if probability > 0.0 && trace::mode() == Mode::Train {
            self.settings.dropout = Some(Dropout { probability, stream: trace::random_stream() });
            self.extras.key = Some(trace::rng());
        }
        self
    }

    /// The result.
    pub fn output(self) -> Tensor<Q> {
        self.output_and_lse().0
    }

    /// The result, and per query the logarithm of the sum of the exponentials of its scores, from
    /// which attention over several parts of the keys can be joined.
    pub fn output_and_lse(self) -> (Tensor<Q>, Tensor<L>) {
        let [q, k, v] = self.inputs;
        let (out, lse) = attend(q, k, v, self.settings, self.extras);
        (Tensor::from_raw(out), Tensor::from_raw(lse))
    }
}
