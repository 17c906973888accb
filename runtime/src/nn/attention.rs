//! Attention layers: self-attention, with grouped queries, and cross-attention.
//!
//! All project with [`Linear`] layers without biases, named as in Llama (`q_proj`, `k_proj`,
//! `v_proj`, `o_proj`), and attend by one operation ([`crate::ops::attention`]). `H` is the width of
//! the model, `N` the heads, `D` the features of a head; `N * D` need not be `H`.

use super::cache::{BoundedKvCache, KvCache};
use super::linear::Linear;
use super::norm::RmsNorm;
use super::position::positions;
use crate::graph::trace::{Handle, type_of};
use crate::language::axis::{Axis, Prod, Sum};
use crate::language::element::{Float, Indices};
use crate::language::shape::Shape;
use crate::neural_module;
use crate::ops::attention::{Attending, attention, grouped_attention};
use crate::ops::leaf;
use crate::ops::rope::{Pairing, Rotary, rope, tables_of};
use crate::tensor::Tensor;

/// The settings of an attention layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionOptions {
    /// Queries see no later key.
    pub causal: bool,
    /// Queries see only the nearest so many positions, their own included.
    pub window: Option<u64>,
    /// The factor on scores instead of `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// The bound that scores approach smoothly.
    pub soft_cap: Option<f64>,
    /// The probability that a weight is dropped in training.
    pub dropout: f64,
    /// Rotary embedding of queries and keys.
    pub rope: Option<Rotary>,
    /// Which features rotate together.
    pub pairing: Pairing,
}

/// Where queries and keys stand in their texts.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Positions `[t]` or `[b, t]`.
    pub positions: Handle,
    /// The length of the text that each position is part of, for scalings of rotary embeddings that
    /// ask for it; without, texts end with the last position.
    pub lengths: Option<Handle>,
}

impl Places {
    /// Positions `0, 1, ..` along `T`, or from a start.
    fn along<T: Axis>(start: Option<Handle>) -> Places {
        Places { positions: positions::<T>(start), lengths: None }
    }
}

impl AttentionOptions {
    /// Attention with these settings but for the rotation, which comes before it.
    pub fn set<Q: Shape, L: Shape, B: Axis, N: Axis, T: Axis, S: Axis>(
        &self,
        a: Attending<Q, L, B, N, T, S>,
    ) -> Attending<Q, L, B, N, T, S> {
        let a = a.window(self.window).scale(self.scale).soft_cap(self.soft_cap).dropout(self.dropout);
        if self.causal { a.causal() } else { a }
    }

    /// Rotates queries `[b, t, heads.., d]` and keys `[b, t, heads, d]` by their places.
    pub fn rotate<S: Shape, R: Shape>(&self, q: Tensor<S>, k: Tensor<R>, places: Places) -> (Tensor<S>, Tensor<R>) {
        let Some(rotary) = &self.rope else { return (q, k) };
        // After a mistake in the trace there may be no such dimension.
        let Some(features) = type_of(q.raw()).dims.pop().map(|d| d.extent) else { return (q, k) };
        let followed: &[usize] = if type_of(places.positions).rank() == 2 { &[0, 1] } else { &[1] };
        let tables = tables_of(rotary, places.positions, places.lengths, &features);
        let turn = |x| rope(x, tables, self.pairing, followed);
        (Tensor::from_raw(turn(q.raw())), Tensor::from_raw(turn(k.raw())))
    }
}

/// The builder methods that all attention layers have.
macro_rules! builders {
    ($name:ident<$($axis:ident),*>) => {
        impl<$($axis: Axis),*> $name<$($axis),*> {
            /// Queries see no later key.
            #[must_use]
            pub fn causal(mut self) -> Self {
                self.options.causal = true;
                self
            }

            /// Queries see only the nearest `window` positions, their own included.
            #[must_use]
            pub fn window(mut self, window: u64) -> Self {
                self.options.window = Some(window);
                self
            }

            /// Rotates queries and keys by their positions, features paired in halves.
            #[must_use]
            pub fn rope(mut self, rotary: Rotary) -> Self {
                self.options.rope = Some(rotary);
                self
            }

            /// RMS norm of every query and key before rotation, as in Qwen 3 (`q_norm`, `k_norm`).
            #[must_use]
            pub fn qk_norm(mut self, eps: f64) -> Self {
                self.q_norm = Some(RmsNorm::default().eps(eps));
                self.k_norm = Some(RmsNorm::default().eps(eps));
                self
            }

            /// Drops weights with this probability in training.
            #[must_use]
            pub fn dropout(mut self, probability: f64) -> Self {
                self.options.dropout = probability;
                self
            }

            /// Other settings.
            #[must_use]
            pub fn with(mut self, options: AttentionOptions) -> Self {
                self.options = options;
                self
            }

            /// Biases in the projections of queries, keys and values (Qwen 2).
            #[must_use]
            pub fn qkv_bias(mut self) -> Self {
                self.q_proj.bias = Some(Default::default());
                self.k_proj.bias = Some(Default::default());
                self.v_proj.bias = Some(Default::default());
                self
            }

            /// Biases in all four projections (GPT-2, BERT).
            #[must_use]
            pub fn bias(self) -> Self {
                let mut all = self.qkv_bias();
                all.o_proj.bias = Some(Default::default());
                all
            }
        }
    };
}

/// Self-attention with `N` heads of `D` features over `[B, T, H]`.
///
/// PyTorch: `nn.MultiheadAttention(H, N, bias=False, batch_first=True)` on `(x, x, x)`.
#[neural_module]
pub struct SelfAttention<H: Axis, N: Axis, D: Axis> {
    /// `[N * D, H]`
    #[default(Linear::default().no_bias())]
    pub q_proj: Linear<H, Prod<N, D>>,
    /// `[N * D, H]`
    #[default(Linear::default().no_bias())]
    pub k_proj: Linear<H, Prod<N, D>>,
    /// `[N * D, H]`
    #[default(Linear::default().no_bias())]
    pub v_proj: Linear<H, Prod<N, D>>,
    /// `[H, N * D]`
    #[default(Linear::default().no_bias())]
    pub o_proj: Linear<Prod<N, D>, H>,
    /// A norm of each query.
    pub q_norm: Option<RmsNorm<D>>,
    /// A norm of each key.
    pub k_norm: Option<RmsNorm<D>>,
    /// The settings.
    #[hyper]
    pub options: AttentionOptions,
}
builders!(SelfAttention<H, N, D>);

/// Queries, keys and values of one layer.
type Heads<B, T, N, D> = (Tensor<(B, T, N, D)>, Tensor<(B, T, N, D)>, Tensor<(B, T, N, D)>);

#[neural_module]
impl<H: Axis, N: Axis, D: Axis> SelfAttention<H, N, D> {
    /// `[B, T, H]` to the same.
    pub fn forward<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        self.forward_with(x, |a| a)
    }

    /// The same with lengths, a mask or a bias for this call:
    /// `attn.forward_with(x, |a| a.lengths(lengths))`.
    #[allow(clippy::type_complexity)]
    pub fn forward_with<B: Axis, T: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        set: impl FnOnce(Attending<(B, T, N, D), (B, N, T), B, N, T, T>) -> Attending<(B, T, N, D), (B, N, T), B, N, T, T>,
    ) -> Tensor<(B, T, H)> {
        let (q, k, v) = self.heads(x, Places::along::<T>(None));
        self.join(set(self.options.set(attention(q, k, v))).output())
    }

    /// `T` more positions after the `P` of a cache, and the cache with them.
    #[allow(clippy::type_complexity)]
    pub fn step<B: Axis, P: Axis, T: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        cache: KvCache<B, P, N, D>,
    ) -> (Tensor<(B, T, H)>, KvCache<B, Sum<P, T>, N, D>) {
        let (q, k, v) = self.heads(x, Places::along::<T>(Some(leaf::index(P::extent()))));
        let cache = cache.append(k, v);
        let y = self.options.set(attention(q, cache.keys, cache.values)).output();
        (self.join(y), cache)
    }

    /// `T` more positions from `position` on, written into a cache of at most `M`. Always causal.
    pub fn step_in_place<B: Axis, M: Axis, T: Axis, E: Float, I: Indices>(
        &self,
        x: Tensor<(B, T, H), E>,
        cache: &BoundedKvCache<B, M, N, D>,
        position: Tensor<(), I>,
    ) -> Tensor<(B, T, H)> {
        let (q, k, v) = self.heads(x, Places::along::<T>(Some(position.raw())));
        let cache = cache.write(k, v, position);
        let a = self.options.set(attention(q, cache.keys, cache.values)).causal().offset(position);
        self.join(a.output())
    }
}

impl<H: Axis, N: Axis, D: Axis> SelfAttention<H, N, D> {
    fn heads<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>, at: Places) -> Heads<B, T, N, D> {
        let q: Tensor<(B, T, N, D)> = self.q_proj.forward(x).reshape();
        let k: Tensor<(B, T, N, D)> = self.k_proj.forward(x).reshape();
        let v: Tensor<(B, T, N, D)> = self.v_proj.forward(x).reshape();
        let q = self.q_norm.as_ref().map_or(q, |norm| norm.forward(q));
        let k = self.k_norm.as_ref().map_or(k, |norm| norm.forward(k));
        let (q, k) = self.options.rotate(q, k, at);
        (q, k, v)
    }

    fn join<B: Axis, T: Axis>(&self, y: Tensor<(B, T, N, D)>) -> Tensor<(B, T, H)> {
        self.o_proj.forward(y.reshape::<(B, T, Prod<N, D>)>())
    }
}

/// Self-attention with grouped queries (Ainslie et al. 2023): `K` key-value heads of `D` features,
/// each read by `G` query heads, over `[B, T, H]`. With one key-value head it is multi-query
/// attention.
#[neural_module]
pub struct GroupedSelfAttention<H: Axis, K: Axis, G: Axis, D: Axis> {
    /// `[K * G * D, H]`
    #[default(Linear::default().no_bias())]
    pub q_proj: Linear<H, Prod<Prod<K, G>, D>>,
    /// `[K * D, H]`
    #[default(Linear::default().no_bias())]
    pub k_proj: Linear<H, Prod<K, D>>,
    /// `[K * D, H]`
    #[default(Linear::default().no_bias())]
    pub v_proj: Linear<H, Prod<K, D>>,
    /// `[H, K * G * D]`
    #[default(Linear::default().no_bias())]
    pub o_proj: Linear<Prod<Prod<K, G>, D>, H>,
    /// A norm of each query.
    pub q_norm: Option<RmsNorm<D>>,
    /// A norm of each key.
    pub k_norm: Option<RmsNorm<D>>,
    /// The settings.
    #[hyper]
    pub options: AttentionOptions,
}
builders!(GroupedSelfAttention<H, K, G, D>);

/// Queries in groups `[B, T, K, G, D]`, keys and values `[B, T, K, D]` of one layer.
pub type Groups<B, T, K, G, D> = (Tensor<(B, T, K, G, D)>, Tensor<(B, T, K, D)>, Tensor<(B, T, K, D)>);

#[neural_module]
impl<H: Axis, K: Axis, G: Axis, D: Axis> GroupedSelfAttention<H, K, G, D> {
    /// `[B, T, H]` to the same.
    pub fn forward<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>) -> Tensor<(B, T, H)> {
        self.forward_with(x, |a| a)
    }

    /// The same with lengths, a mask or a bias for this call. Masks per head have the axis
    /// `Prod<K, G>`.
    #[allow(clippy::type_complexity)]
    pub fn forward_with<B: Axis, T: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        set: impl FnOnce(
            Attending<(B, T, K, G, D), (B, K, G, T), B, Prod<K, G>, T, T>,
        ) -> Attending<(B, T, K, G, D), (B, K, G, T), B, Prod<K, G>, T, T>,
    ) -> Tensor<(B, T, H)> {
        let (q, k, v) = self.heads(x, Places::along::<T>(None));
        self.join(set(self.options.set(grouped_attention(q, k, v))).output())
    }

    /// `T` more positions after the `P` of a cache, and the cache with them.
    #[allow(clippy::type_complexity)]
    pub fn step<B: Axis, P: Axis, T: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        cache: KvCache<B, P, K, D>,
    ) -> (Tensor<(B, T, H)>, KvCache<B, Sum<P, T>, K, D>) {
        let (q, k, v) = self.heads(x, Places::along::<T>(Some(leaf::index(P::extent()))));
        let cache = cache.append(k, v);
        let y = self.options.set(grouped_attention(q, cache.keys, cache.values)).output();
        (self.join(y), cache)
    }

    /// `T` more positions from `position` on, written into a cache of at most `M`. Always causal.
    pub fn step_in_place<B: Axis, M: Axis, T: Axis, E: Float, I: Indices>(
        &self,
        x: Tensor<(B, T, H), E>,
        cache: &BoundedKvCache<B, M, K, D>,
        position: Tensor<(), I>,
    ) -> Tensor<(B, T, H)> {
        let (q, k, v) = self.heads(x, Places::along::<T>(Some(position.raw())));
        let cache = cache.write(k, v, position);
        let a = self.options.set(grouped_attention(q, cache.keys, cache.values)).causal().offset(position);
        self.join(a.output())
    }

    /// Attention by a function of the caller's: `attend` gets queries `[B, T, K, G, D]`, keys and
    /// values `[B, T, K, D]`, normed and rotated by their places, and the settings, and gives what
    /// the queries found. For caches of other kinds than this file's.
    pub fn forward_at<B: Axis, T: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        places: Places,
        attend: impl FnOnce(Groups<B, T, K, G, D>, &AttentionOptions) -> Tensor<(B, T, K, G, D)>,
    ) -> Tensor<(B, T, H)> {
        let heads = self.heads(x, places);
        self.join(attend(heads, &self.options))
    }
}

impl<H: Axis, K: Axis, G: Axis, D: Axis> GroupedSelfAttention<H, K, G, D> {
    fn heads<B: Axis, T: Axis, E: Float>(&self, x: Tensor<(B, T, H), E>, at: Places) -> Groups<B, T, K, G, D> {
        let q: Tensor<(B, T, K, G, D)> = self.q_proj.forward(x).reshape();
        let k: Tensor<(B, T, K, D)> = self.k_proj.forward(x).reshape();
        let v: Tensor<(B, T, K, D)> = self.v_proj.forward(x).reshape();
        let q = self.q_norm.as_ref().map_or(q, |norm| norm.forward(q));
        let k = self.k_norm.as_ref().map_or(k, |norm| norm.forward(k));
        let (q, k) = self.options.rotate(q, k, at);
        (q, k, v)
    }

    fn join<B: Axis, T: Axis>(&self, y: Tensor<(B, T, K, G, D)>) -> Tensor<(B, T, H)> {
        self.o_proj.forward(y.reshape::<(B, T, Prod<Prod<K, G>, D>)>())
    }
}

/// Cross-attention: queries from `[B, T, H]`, keys and values from a memory `[B, S, M]`, with `N`
/// heads of `D` features.
///
/// PyTorch: `nn.MultiheadAttention(H, N, kdim=M, vdim=M, bias=False, batch_first=True)`.
#[neural_module]
pub struct CrossAttention<H: Axis, M: Axis, N: Axis, D: Axis> {
    /// `[N * D, H]`
    #[default(Linear::default().no_bias())]
    pub q_proj: Linear<H, Prod<N, D>>,
    /// `[N * D, M]`
    #[default(Linear::default().no_bias())]
    pub k_proj: Linear<M, Prod<N, D>>,
    /// `[N * D, M]`
    #[default(Linear::default().no_bias())]
    pub v_proj: Linear<M, Prod<N, D>>,
    /// `[H, N * D]`
    #[default(Linear::default().no_bias())]
    pub o_proj: Linear<Prod<N, D>, H>,
    /// A norm of each query.
    pub q_norm: Option<RmsNorm<D>>,
    /// A norm of each key.
    pub k_norm: Option<RmsNorm<D>>,
    /// The settings; positions of queries and of the memory are not rotated.
    #[hyper]
    pub options: AttentionOptions,
}
builders!(CrossAttention<H, M, N, D>);

#[neural_module]
impl<H: Axis, M: Axis, N: Axis, D: Axis> CrossAttention<H, M, N, D> {
    /// `[B, T, H]` and a memory `[B, S, M]` to `[B, T, H]`.
    pub fn forward<B: Axis, T: Axis, S: Axis, E: Float, F: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        memory: Tensor<(B, S, M), F>,
    ) -> Tensor<(B, T, H)> {
        self.attend(x, self.memory(memory), |a| a)
    }

    /// Keys and values of a memory, to be attended to many times.
    pub fn memory<B: Axis, S: Axis, F: Float>(&self, memory: Tensor<(B, S, M), F>) -> KvCache<B, S, N, D> {
        let k: Tensor<(B, S, N, D)> = self.k_proj.forward(memory).reshape();
        let k = self.k_norm.as_ref().map_or(k, |norm| norm.forward(k));
        KvCache::new(k, self.v_proj.forward(memory).reshape())
    }

    /// Attention to a memory's keys and values, with lengths, a mask or a bias:
    /// `cross.attend(x, memory, |a| a.lengths(lengths))`.
    #[allow(clippy::type_complexity)]
    pub fn attend<B: Axis, T: Axis, S: Axis, E: Float>(
        &self,
        x: Tensor<(B, T, H), E>,
        memory: KvCache<B, S, N, D>,
        set: impl FnOnce(Attending<(B, T, N, D), (B, N, T), B, N, T, S>) -> Attending<(B, T, N, D), (B, N, T), B, N, T, S>,
    ) -> Tensor<(B, T, H)> {
        let q: Tensor<(B, T, N, D)> = self.q_proj.forward(x).reshape();
        let q = self.q_norm.as_ref().map_or(q, |norm| norm.forward(q));
        let y = set(self.options.set(attention(q, memory.keys, memory.values))).output();
        self.o_proj.forward(y.reshape::<(B, T, Prod<N, D>)>())
    }
}
