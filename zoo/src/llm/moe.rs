//! Feed-forward layers of experts: a router chooses a few of many gated layers for each token, and
//! their results are added with the router's weights.
//!
//! Mixtral (Jiang et al. 2024, <https://arxiv.org/abs/2401.04088>), Qwen 1.5 MoE and Qwen 3 MoE choose
//! by the softmax of a linear layer; DeepSeek's router is in [`super::deepseek`]. Only the chosen
//! experts' matrices are multiplied ([`mobilis_runtime::ops::experts`]). As Hugging Face's
//! `modeling_mixtral.py` and `modeling_qwen2_moe.py`.

use super::block::{Layer, Stream};
use super::config::{Config, ConfigError};
use super::{Batch, CausalLm, Context, Ids, Time};
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::nn::{Activation, Linear, SwiGlu};
use mobilis_runtime::ops::elementwise as ew;
use mobilis_runtime::ops::{gather, leaf, reduce, softmax, sort};
use mobilis_runtime::prelude::*;
use std::cell::RefCell;

/// One expert: a gated feed-forward layer from `H` through `F`.
pub trait Expert<H: Axis, F: Axis>: Module {
    /// The layer of the gate, `[F, H]`.
    fn gate(&self) -> &Linear<H, F>;
    /// The layer that the gate multiplies, `[F, H]`.
    fn up(&self) -> &Linear<H, F>;
    /// The layer back, `[H, F]`.
    fn down(&self) -> &Linear<F, H>;
}

impl<H: Axis, F: Axis> Expert<H, F> for SwiGlu<H, F> {
    fn gate(&self) -> &Linear<H, F> {
        &self.gate_proj
    }
    fn up(&self) -> &Linear<H, F> {
        &self.up_proj
    }
    fn down(&self) -> &Linear<F, H> {
        &self.down_proj
    }
}

/// What a router chose for each token: experts, and the weights of their results.
#[derive(Clone, Copy)]
pub struct Choice<C: Axis> {
    /// `[Batch, Time, C]`
    pub experts: Tensor<(Batch, Time, C), Index>,
    /// `[Batch, Time, C]`
    pub weights: Tensor<(Batch, Time, C)>,
}

impl<C: Axis> Choice<C> {
    /// The `C` largest scores `[Batch, Time, E]` of each token.
    pub fn largest<E: Axis>(scores: Tensor<(Batch, Time, E)>) -> Choice<C> {
        let (weights, experts) = sort::sort(scores.raw(), 2, true, C::dim());
        Choice { experts: Tensor::from_raw(experts), weights: Tensor::from_raw(weights) }
    }

    /// The same with weights that sum to one; `eps` is added to the sum.
    #[must_use]
    pub fn normed(self, eps: f64) -> Choice<C> {
        let weights = self.weights.raw();
        let sum = reduce::reduce(weights, reduce::Kind::Sum, &[2]);
        let sum = if eps > 0.0 { ew::add(sum, ew::constant_like(sum, eps)) } else { sum };
        let sum = reduce::restore(sum, &type_of(weights).dims, &[2]);
        Choice { weights: Tensor::from_raw(ew::div(weights, sum)), ..self }
    }

    /// The chosen experts' results, added with their weights.
    pub fn mix<H: Axis, F: Axis, X: Expert<H, F>>(
        self,
        x: Stream<H>,
        experts: &[X],
        activation: Activation,
    ) -> Stream<H> {
        let all = |of: fn(&X) -> &Linear<H, F>| experts.iter().map(|e| of(e).weight.get()).collect::<Vec<_>>();
        let back: Vec<_> = experts.iter().map(|e| e.down().weight.get()).collect();
        let gate = activation.apply(x.experts(self.experts, &all(X::gate)).raw());
        let inner = ew::mul(gate, x.experts(self.experts, &all(X::up)).raw());
        let inner: Tensor<(Batch, Time, C, F)> = Tensor::from_raw(inner);
        let each: Handle = inner.experts(self.experts, &back).raw();
        let weights = reduce::restore(self.weights.raw(), &type_of(each).dims, &[3]);
        Tensor::from_raw(reduce::reduce(ew::mul(each, weights), reduce::Kind::Sum, &[2]))
    }
}

/// Experts `X`, of which the router's softmax chooses `C` of `E` for each token; and in Qwen2-MoE a
/// shared one of width `S` that works on every token, behind a gate.
#[neural_module(no_default)]
pub struct SparseMlp<H: Axis, E: Axis, C: Axis, F: Axis, S: Axis, X: Expert<H, F>> {
    /// The router, `[E, H]`.
    pub gate: Linear<H, E>,
    /// The experts.
    pub experts: Vec<X>,
    /// An expert for every token.
    pub shared_expert: Option<SwiGlu<H, S>>,
    /// How much the shared expert counts, `[1, H]`.
    pub shared_expert_gate: Option<Linear<H, Const<1>>>,
    /// What the experts' gates go through.
    #[hyper]
    pub activation: Activation,
    /// Whether the chosen weights are made to sum to one.
    pub normed: bool,
    axes: std::marker::PhantomData<fn() -> (C, F)>,
}

impl<H: Axis, E: Axis, C: Axis, F: Axis, S: Axis, X: Expert<H, F>> SparseMlp<H, E, C, F, S, X> {
    /// A layer of these experts, without a shared one.
    pub fn new(experts: Vec<X>, activation: Activation, normed: bool) -> Self {
        let gate = Linear::default().no_bias();
        let axes = std::marker::PhantomData;
        SparseMlp { gate, experts, shared_expert: None, shared_expert_gate: None, activation, normed, axes }
    }

    /// The same with a shared expert behind a gate.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared_expert = Some(SwiGlu::default().activation(self.activation));
        self.shared_expert_gate = Some(Linear::default().no_bias());
        self
    }
}

#[neural_module]
impl<H: Axis, E: Axis, C: Axis, F: Axis, S: Axis, X: Expert<H, F>> SparseMlp<H, E, C, F, S, X> {
    /// `[Batch, Time, H]` to the same.
    pub fn forward(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        let logits: Tensor<(Batch, Time, E)> = self.gate.forward(x);
        cx.routed(logits);
        let choice = Choice::<C>::largest::<E>(Tensor::from_raw(softmax::softmax(logits.raw(), 2)));
        let choice = if self.normed { choice.normed(0.0) } else { choice };
        let y = choice.mix(x, &self.experts, self.activation);
        let (Some(shared), Some(gate)) = (&self.shared_expert, &self.shared_expert_gate) else { return y };
        let own = shared.forward(x);
        let amount = reduce::reduce(gate.forward(x).sigmoid().raw(), reduce::Kind::Sum, &[2]);
        let amount = reduce::restore(amount, &type_of(own.raw()).dims, &[2]);
        y + Tensor::<(Batch, Time, H)>::from_raw(ew::mul(own.raw(), amount))
    }
}

impl<H: Axis, E: Axis, C: Axis, F: Axis, S: Axis, X: Expert<H, F>> Layer<H> for SparseMlp<H, E, C, F, S, X> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        self.forward(x, cx)
    }
}

/// A layer of experts or an ordinary one: models have both.
pub enum Either<D, S> {
    /// Every token goes through all of it.
    Dense(D),
    /// Every token goes through some of it.
    Sparse(S),
}

impl<D: Module, S: Module> Module for Either<D, S> {
    fn kind(&self) -> &'static str {
        match self {
            Either::Dense(m) => m.kind(),
            Either::Sparse(m) => m.kind(),
        }
    }
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        // Without a name of its own.
        match self {
            Either::Dense(m) => visitor.module("", m),
            Either::Sparse(m) => visitor.module("", m),
        }
    }
}

impl<H: Axis, D: Layer<H>, S: Layer<H>> Layer<H> for Either<D, S> {
    fn apply(&self, x: Stream<H>, cx: &Context) -> Stream<H> {
        match self {
            Either::Dense(m) => m.apply(x, cx),
            Either::Sparse(m) => m.apply(x, cx),
        }
    }
}

/// Whether layer `i` has experts: all but those of `mlp_only_layers`, and every
/// `decoder_sparse_step`-th.
///
/// # Errors
/// Settings of another kind.
pub fn is_sparse(config: &Config, i: usize) -> Result<bool, ConfigError> {
    let dense = config.numbers("mlp_only_layers")?.unwrap_or_default();
    let step = match config.count("decoder_sparse_step")? {
        Some(0) => return Err(config.wrong("decoder_sparse_step", "a whole number of at least 1")),
        step => step.unwrap_or(1),
    };
    Ok(!dense.contains(&(i as f64)) && (i + 1).is_multiple_of(step))
}

/// How many experts there are (the first of these settings) and how many of them are chosen.
///
/// # Errors
/// Settings that are missing, and more choices than experts.
pub fn experts(config: &Config, keys: &[&str]) -> Result<(usize, usize), ConfigError> {
    let (all, chosen) = (config.size_of(keys)?, config.size("num_experts_per_tok")?);
    let key = keys.iter().find(|k| config.get(k).is_some()).unwrap_or(&keys[0]);
    if all > 65_000 {
        return Err(config.wrong(key, "at most 65000 experts"));
    }
    if chosen > all {
        return Err(config.wrong("num_experts_per_tok", format!("at most the {all} experts")));
    }
    Ok((all, chosen))
}

/// Whether so many layers of experts (their number is the first of these settings) can be in a
/// checkpoint of so many tensors: nothing is built of a number that cannot be right.
///
/// # Errors
/// They cannot.
pub fn check_count(config: &Config, keys: &[&str], layers: usize, tensors: usize) -> Result<(), ConfigError> {
    let (all, _) = experts(config, keys)?;
    if all.saturating_mul(layers).saturating_mul(3) <= tensors {
        return Ok(());
    }
    let key = keys.iter().find(|k| config.get(k).is_some()).unwrap_or(&keys[0]);
    Err(config.wrong(key, format!("experts with three matrices in each of {layers} layers, of {tensors} tensors")))
}

/// The logits of all routers of a model `M`, seen while `f` uses the context.
pub fn routers<E: Axis, R>(f: impl FnOnce(&Context) -> R) -> (R, Vec<Tensor<(Batch, Time, E)>>) {
    let logits = RefCell::new(vec![]);
    let result = f(&Context::whole().routers(&logits));
    (result, logits.into_inner().into_iter().map(Tensor::from_raw).collect())
}

/// The loss that keeps routers from choosing few experts only (Shazeer et al. 2017, Fedus et al. 2021;
/// `load_balancing_loss_func` of transformers), of the logits of all layers, with `C` choices a token:
/// `E` times the sum over experts of the part of tokens that chose it and its mean probability. It is
/// `C` where all are chosen alike. Add it `router_aux_loss_coef` times.
pub fn balance_loss<E: Axis, C: Axis>(layers: &[Tensor<(Batch, Time, E)>]) -> Tensor<()> {
    let mean = |x: Handle, over: &[usize]| reduce::mean(x, over);
    let (mut chosen, mut probable): (Option<Handle>, Option<Handle>) = (None, None);
    for logits in layers {
        let scores = softmax::softmax(logits.raw(), 2);
        let (_, experts) = sort::sort(scores, 2, true, C::dim());
        let hits = reduce::reduce(gather::one_hot(experts, E::dim()), reduce::Kind::Sum, &[2]);
        let add = |sum: Option<Handle>, x: Handle| Some(sum.map_or(x, |sum| ew::add(sum, x)));
        chosen = add(chosen, mean(hits, &[0, 1]));
        probable = add(probable, mean(scores, &[0, 1]));
    }
    let (Some(chosen), Some(probable)) = (chosen, probable) else { return Tensor::zeros() };
    let n = layers.len() as f64;
    let sum = reduce::reduce(ew::mul(chosen, probable), reduce::Kind::Sum, &[0]);
    Tensor::from_raw(ew::mul(ew::scale(sum, 1.0 / (n * n)), leaf::size(E::extent())))
}

/// The training loss of a model with routers: the mean cross-entropy of `next` given `ids`, and
/// `coefficient` times the [`balance_loss`].
pub fn loss<M: CausalLm, E: Axis, C: Axis>(model: &M, ids: Ids, next: Ids, coefficient: f64) -> Tensor<()> {
    let (stream, layers) = routers::<E, _>(|cx| model.stream(ids, cx));
    let own: Tensor<()> = model.head(stream).cross_entropy(next);
    own + balance_loss::<E, C>(&layers) * coefficient
}
