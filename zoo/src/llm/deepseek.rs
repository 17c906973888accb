//! DeepSeek-V3: attention over a latent (MLA), and many small experts chosen by a sigmoid within
//! groups.
//!
//! DeepSeek-AI 2024 (<https://arxiv.org/abs/2412.19437>). As Hugging Face's
//! `modeling_deepseek_v3.py`.
//!
//! **Attention.** Keys and values of all heads are products of one latent vector a position,
//! `k = W_k c`, `v = W_v c`; a small part of the key, the same for all heads, bears the position.
//! Over whole texts keys and values are computed. Over caches only the latent and the rotated part
//! are kept (576 numbers a position in DeepSeek-V3, where keys and values would be 40,960), and the
//! matrices move to the other side (the paper's "absorption"): a score is
//! `q . W_k c = (W_k^T q) . c`, a head's result `sum p W_v c = W_v (sum p c)`. So a head looks at the
//! latents as if they were keys and values that all heads share.
//!
//! **Routing.** Scores are sigmoids. A bias that training sets so that experts are used alike counts
//! for the choice only; of the groups into which experts fall those count whose two best experts are
//! the best. The weights of the chosen sum to `routed_scaling_factor`.

use super::block::{Block, Decoder, Layer, Stream};
use super::config::{Config, ConfigError};
use super::moe::{self, Choice, Either};
use super::{Batch, Context, Time};
use mobilis_runtime::graph::Extent;
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::language::axis::{Prod, Sum};
use mobilis_runtime::module::param::Buffer;
use mobilis_runtime::nn::{Activation, AttentionOptions, Linear, Pairing, RmsNorm, SwiGlu};
use mobilis_runtime::ops::{contraction, elementwise as ew, gather, leaf, movement, reduce, rope, slice, sort};
use mobilis_runtime::prelude::*;

axes! {
    /// What a DeepSeek may choose.
    pub trait DeepseekAxes {
        /// Tokens.
        Vocab,
        /// The width of the stream.
        Hidden,
        /// Heads.
        Heads,
        /// Features of a head's queries and keys that bear no position.
        NopeDim,
        /// Features that do.
        RopeDim,
        /// Features of a head's values.
        ValueDim,
        /// The latent of keys and values.
        Latent,
        /// The latent of queries.
        QueryLatent,
        /// The width of layers without experts.
        Ffn,
        /// Groups into which they fall.
        ExpertGroups,
        /// Experts of a group.
        PerGroup,
        /// Groups that count for a token.
        ChosenGroups,
        /// Experts that are chosen for a token.
        Chosen,
        /// The width of an expert.
        ExpertFfn,
        /// The width of the experts for every token.
        SharedFfn,
    }
    /// A DeepSeek of sizes from a `config.json`.
    pub struct AnyDeepseek: DeepseekAxes;
}

/// All experts of a layer.
pub type Experts<A> = Prod<<A as DeepseekAxes>::ExpertGroups, <A as DeepseekAxes>::PerGroup>;
/// A head's queries and keys.
type QkDim<A> = Sum<<A as DeepseekAxes>::NopeDim, <A as DeepseekAxes>::RopeDim>;
/// What is kept of a position.
type Kept<A> = Sum<<A as DeepseekAxes>::Latent, <A as DeepseekAxes>::RopeDim>;
/// One matrix for a head's keys and values.
type KvDim<A> = Sum<<A as DeepseekAxes>::NopeDim, <A as DeepseekAxes>::ValueDim>;

/// Attention over latents.
#[neural_module(no_default)]
pub struct LatentAttention<A: DeepseekAxes> {
    /// Queries, where they have no latent.
    pub q_proj: Option<Linear<A::Hidden, Prod<A::Heads, QkDim<A>>>>,
    /// The latent of queries.
    pub q_a_proj: Option<Linear<A::Hidden, A::QueryLatent>>,
    /// Its norm.
    pub q_a_layernorm: Option<RmsNorm<A::QueryLatent>>,
    /// Queries from their latent.
    pub q_b_proj: Option<Linear<A::QueryLatent, Prod<A::Heads, QkDim<A>>>>,
    /// The latent of keys and values, and the part of keys that bears the position.
    pub kv_a_proj_with_mqa: Linear<A::Hidden, Kept<A>>,
    /// The latent's norm.
    pub kv_a_layernorm: RmsNorm<A::Latent>,
    /// Keys and values from their latent.
    pub kv_b_proj: Linear<A::Latent, Prod<A::Heads, KvDim<A>>>,
    /// Back to the stream.
    pub o_proj: Linear<Prod<A::Heads, A::ValueDim>, A::Hidden>,
    /// The settings; the rotation is of the position's part alone.
    #[hyper]
    pub options: AttentionOptions,
}

/// A tensor of each head, `[Batch, Time, Heads, D]`.
type PerHead<A, D> = Tensor<(Batch, Time, <A as DeepseekAxes>::Heads, D)>;

impl<A: DeepseekAxes> LatentAttention<A> {
    /// Attention with these settings; queries have a latent if `query_latent`.
    pub fn new(options: AttentionOptions, query_latent: bool, bias: bool) -> Self {
        fn linear<I: Axis, O: Axis>(bias: bool) -> Linear<I, O> {
            if bias { Linear::default() } else { Linear::default().no_bias() }
        }
        LatentAttention {
            q_proj: (!query_latent).then(|| linear(false)),
            q_a_proj: query_latent.then(|| linear(bias)),
            q_a_layernorm: query_latent.then(RmsNorm::default),
            q_b_proj: query_latent.then(|| linear(false)),
            kv_a_proj_with_mqa: linear(bias),
            kv_a_layernorm: RmsNorm::default(),
            kv_b_proj: linear(false),
            o_proj: linear(bias),
            options,
        }
    }

    /// Features `from..` of the last axis, as many as `D` has.
    fn part<S, D: Axis>(x: Handle, from: Extent) -> Tensor<S> {
        let last = type_of(x).rank().saturating_sub(1);
        Tensor::from_raw(slice::slice(x, last, from, 1, D::dim()))
    }

    /// Queries, the two parts apart.
    fn queries(&self, x: Stream<A::Hidden>) -> (PerHead<A, A::NopeDim>, PerHead<A, A::RopeDim>) {
        let direct = self.q_proj.as_ref().map(|q| q.forward(x));
        let q = direct.unwrap_or_else(|| {
            let latent = self.q_a_proj.as_ref().expect("queries have one way or the other").forward(x);
            let latent = self.q_a_layernorm.as_ref().map_or(latent, |norm| norm.forward(latent));
            self.q_b_proj.as_ref().expect("a latent leads to queries").forward(latent)
        });
        let q: PerHead<A, QkDim<A>> = q.reshape();
        let none = Extent::constant(0);
        (Self::part::<_, A::NopeDim>(q.raw(), none), Self::part::<_, A::RopeDim>(q.raw(), A::NopeDim::extent()))
    }

    /// Keys and values of all heads.
    fn expanded(
        &self,
        latent: Stream<A::Latent>,
        k_rope: Tensor<(Batch, Time, Const<1>, A::RopeDim)>,
    ) -> (PerHead<A, QkDim<A>>, PerHead<A, A::ValueDim>) {
        let kv: PerHead<A, KvDim<A>> = self.kv_b_proj.forward(latent).reshape();
        let none = Extent::constant(0);
        let k: PerHead<A, A::NopeDim> = Self::part::<_, A::NopeDim>(kv.raw(), none);
        let mut dims = type_of(k.raw()).dims;
        if let Some(last) = dims.last_mut() {
            *last = A::RopeDim::dim();
        }
        // The same for all heads.
        let one = reduce::reduce(k_rope.raw(), reduce::Kind::Sum, &[2]);
        let k_rope = reduce::restore(one, &dims, &[2]);
        let k = Tensor::from_raw(slice::concat(&[k.raw(), k_rope], 3, QkDim::<A>::dim()));
        (k, Self::part::<_, A::ValueDim>(kv.raw(), A::NopeDim::extent()))
    }

    /// The matrices `[Heads, D, Latent]` that lead from latents to rows `from..` of each head's.
    fn matrices<D: Axis>(&self, from: Extent) -> Handle {
        let w = self.kv_b_proj.weight.get().raw();
        let w = movement::reshape(w, vec![A::Heads::dim(), KvDim::<A>::dim(), A::Latent::dim()]);
        slice::slice(w, 1, from, 1, D::dim())
    }

    /// Attention to latents, with the matrices on the other side.
    fn absorbed(
        &self,
        (q, q_rope): (PerHead<A, A::NopeDim>, PerHead<A, A::RopeDim>),
        latent: Stream<A::Latent>,
        k_rope: Tensor<(Batch, Time, Const<1>, A::RopeDim)>,
        cx: &Context,
    ) -> PerHead<A, A::ValueDim> {
        let [b, t, h, d, l] = [0u8, 1, 2, 3, 4];
        let w_k = self.matrices::<A::NopeDim>(Extent::constant(0));
        let q = contraction::einsum(&[q.raw(), w_k], &[&[b, t, h, d], &[h, d, l]], &[b, t, h, l]);
        let q: PerHead<A, Kept<A>> = Tensor::from_raw(slice::concat(&[q, q_rope.raw()], 3, Kept::<A>::dim()));
        let latent: Tensor<(Batch, Time, Const<1>, A::Latent)> = latent.reshape();
        let entries = slice::concat(&[latent.raw(), k_rope.raw()], 3, Kept::<A>::dim());
        let q: Tensor<(Batch, Time, Const<1>, A::Heads, Kept<A>)> = q.reshape();
        let y: Tensor<(Batch, Time, Const<1>, A::Heads, A::Latent)> =
            cx.attend_latent(q, Tensor::from_raw(entries), &self.options);
        let y: PerHead<A, A::Latent> = y.reshape();
        let w_v = self.matrices::<A::ValueDim>(A::NopeDim::extent());
        Tensor::from_raw(contraction::einsum(&[y.raw(), w_v], &[&[b, t, h, l], &[h, d, l]], &[b, t, h, d]))
    }
}

#[neural_module]
impl<A: DeepseekAxes> LatentAttention<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        let (q, mut q_rope) = self.queries(x);
        let kv = self.kv_a_proj_with_mqa.forward(x).raw();
        let latent: Stream<A::Latent> = Self::part::<_, A::Latent>(kv, Extent::constant(0));
        let latent = self.kv_a_layernorm.forward(latent);
        let k_rope: Stream<A::RopeDim> = Self::part::<_, A::RopeDim>(kv, A::Latent::extent());
        let mut k_rope: Tensor<(Batch, Time, Const<1>, A::RopeDim)> = k_rope.reshape();
        if let Some(rotary) = &self.options.rope {
            let places = cx.places();
            let tables = rope::tables_of(rotary, places.positions, places.lengths, &A::RopeDim::extent());
            let turn = |x: Handle| rope::rope(x, tables, self.options.pairing, &[0, 1]);
            (q_rope, k_rope) = (Tensor::from_raw(turn(q_rope.raw())), Tensor::from_raw(turn(k_rope.raw())));
        }
        let y = if cx.is_cached() {
            self.absorbed((q, q_rope), latent, k_rope, cx)
        } else {
            let (k, v) = self.expanded(latent, k_rope);
            let q = slice::concat(&[q.raw(), q_rope.raw()], 3, QkDim::<A>::dim());
            let q: Tensor<(Batch, Time, A::Heads, Const<1>, QkDim<A>)> =
                Tensor::<(Batch, Time, A::Heads, QkDim<A>)>::from_raw(q).reshape();
            cx.attend(q, k, v, &self.options).reshape()
        };
        self.o_proj.forward(y.reshape::<(Batch, Time, Prod<A::Heads, A::ValueDim>)>())
    }
}

impl<A: DeepseekAxes> Layer<A::Hidden> for LatentAttention<A> {
    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// Chooses experts by sigmoids, within groups.
#[neural_module]
pub struct Router<A: DeepseekAxes> {
    /// `[Experts, Hidden]`
    pub weight: Param<(Experts<A>, A::Hidden)>,
    /// Counts for the choice, not for the weights.
    pub e_score_correction_bias: Buffer<(Experts<A>,)>,
    /// Whether the chosen weights are made to sum to one first.
    #[default(true)]
    pub normed: bool,
    /// What the weights are multiplied by.
    #[default(1.0)]
    pub scaling: f64,
    /// Whether there is more than one group.
    pub grouped: bool,
}

#[neural_module]
impl<A: DeepseekAxes> Router<A> {
    /// The choice for each token.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Choice<A::Chosen> {
        let logits: Tensor<(Batch, Time, Experts<A>)> =
            Tensor::from_raw(contraction::linear(x.raw(), self.weight.get().raw()));
        cx.routed(logits);
        let scores = logits.sigmoid();
        let for_choice = scores + self.e_score_correction_bias.get();
        let for_choice = if self.grouped { self.within_groups(for_choice) } else { for_choice };
        let (_, experts) = sort::sort(for_choice.raw(), 2, true, A::Chosen::dim());
        let weights = gather::gather(scores.raw(), experts, 2);
        let choice = Choice { experts: Tensor::from_raw(experts), weights: Tensor::from_raw(weights) };
        let choice = if self.normed { choice.normed(1e-20) } else { choice };
        Choice { weights: choice.weights * self.scaling, ..choice }
    }
}

impl<A: DeepseekAxes> Router<A> {
    /// Minus infinity for experts of groups whose two best are not among the best.
    fn within_groups(&self, scores: Tensor<(Batch, Time, Experts<A>)>) -> Tensor<(Batch, Time, Experts<A>)> {
        let dims = vec![Batch::dim(), Time::dim(), A::ExpertGroups::dim(), A::PerGroup::dim()];
        let apart = movement::reshape(scores.raw(), dims.clone());
        let (best, _) = sort::sort(apart, 3, true, <Const<2>>::dim());
        let best = reduce::reduce(best, reduce::Kind::Sum, &[3]);
        let (_, groups) = sort::sort(best, 2, true, A::ChosenGroups::dim());
        let hits = reduce::reduce(gather::one_hot(groups, A::ExpertGroups::dim()), reduce::Kind::Sum, &[2]);
        let hits = reduce::restore(hits, &dims, &[3]);
        let counts = ew::compare(ew::CompareKind::Gt, hits, ew::constant_like(hits, 0.5));
        let kept = ew::select(counts, apart, leaf::fill(f64::NEG_INFINITY, type_of(apart)));
        let kept = movement::reshape(kept, vec![Batch::dim(), Time::dim(), Experts::<A>::dim()]);
        Tensor::from_raw(kept)
    }
}

/// Chosen experts, and some for every token.
#[neural_module(no_default)]
pub struct DeepseekMoe<A: DeepseekAxes> {
    /// The router.
    pub gate: Router<A>,
    /// The experts.
    pub experts: Vec<SwiGlu<A::Hidden, A::ExpertFfn>>,
    /// Those for every token, as one layer.
    pub shared_experts: Option<SwiGlu<A::Hidden, A::SharedFfn>>,
    /// What gates go through.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: DeepseekAxes> DeepseekMoe<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        let y = self.gate.forward(x, cx).mix(x, &self.experts, self.activation);
        self.shared_experts.as_ref().map_or(y, |shared| y + shared.forward(x))
    }
}

impl<A: DeepseekAxes> Layer<A::Hidden> for DeepseekMoe<A> {
    fn apply(&self, x: Stream<A::Hidden>, cx: &Context) -> Stream<A::Hidden> {
        self.forward(x, cx)
    }
}

/// The feed-forward layer of a block.
pub type Mlp<A> = Either<SwiGlu<<A as DeepseekAxes>::Hidden, <A as DeepseekAxes>::Ffn>, DeepseekMoe<A>>;
/// One layer.
pub type DeepseekBlock<A> = Block<<A as DeepseekAxes>::Hidden, LatentAttention<A>, Mlp<A>>;
/// The language model.
pub type Deepseek<A> = Decoder<<A as DeepseekAxes>::Vocab, <A as DeepseekAxes>::Hidden, DeepseekBlock<A>>;

/// The setting of the number of experts, in its spellings.
pub const EXPERTS: [&str; 2] = ["n_routed_experts", "num_local_experts"];

/// How many of the first layers have no experts.
///
/// # Errors
/// Another kind of value.
pub fn dense_layers(config: &Config) -> Result<usize, ConfigError> {
    Ok(config.count("first_k_dense_replace")?.unwrap_or(3))
}

/// Groups of experts, and how many of them count.
fn groups(config: &Config) -> Result<(usize, usize), ConfigError> {
    let (experts, chosen) = moe::experts(config, &EXPERTS)?;
    let all = config.count("n_group")?.unwrap_or(1).max(1);
    let count = config.count("topk_group")?.unwrap_or(1).max(1);
    if !experts.is_multiple_of(all) || all > 1 && experts / all < 2 {
        return Err(config.wrong("n_group", format!("a divisor of the {experts} experts, with two or more in each")));
    }
    if count > all {
        return Err(config.wrong("topk_group", format!("at most the {all} groups")));
    }
    if chosen > count * (experts / all) {
        return Err(config.wrong("num_experts_per_tok", format!("at most the experts of {count} groups of {all}")));
    }
    Ok((all, count))
}

/// The sizes that a configuration gives to the axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: DeepseekAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let (experts, chosen) = moe::experts(config, &EXPERTS)?;
    let (all, count) = groups(config)?;
    let or_one = |n: Option<usize>| n.filter(|n| *n > 0).unwrap_or(1);
    let expert = config.size("moe_intermediate_size")?;
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::Heads>(config.size("num_attention_heads")?)
        .with::<A::NopeDim>(config.size("qk_nope_head_dim")?)
        .with::<A::RopeDim>(config.size("qk_rope_head_dim")?)
        .with::<A::ValueDim>(config.size("v_head_dim")?)
        .with::<A::Latent>(config.size("kv_lora_rank")?)
        .with::<A::QueryLatent>(or_one(config.count("q_lora_rank")?))
        .with::<A::Ffn>(or_one(config.count("intermediate_size")?))
        .with::<A::ExpertGroups>(all)
        .with::<A::PerGroup>(experts / all)
        .with::<A::ChosenGroups>(count)
        .with::<A::Chosen>(chosen)
        .with::<A::ExpertFfn>(expert)
        .with::<A::SharedFfn>(expert.saturating_mul(or_one(config.count("n_shared_experts")?))))
}

/// The factor on scores: one over the root of a query's size, and twice the warmth of long texts
/// (`yarn_apply_mscale`).
fn scale(config: &Config) -> Result<f64, ConfigError> {
    let features = config.size("qk_nope_head_dim")? + config.size("qk_rope_head_dim")?;
    let own = 1.0 / (features as f64).sqrt();
    let Some(set) = config.inner("rope_parameters").or_else(|| config.inner("rope_scaling")) else { return Ok(own) };
    let kind = set.word("rope_type")?.or(set.word("type")?).unwrap_or("default");
    let (warmth, factor) = (set.number("mscale_all_dim", 0.0)?, set.number("factor", 1.0)?);
    if kind == "default" || warmth == 0.0 || factor <= 1.0 {
        return Ok(own);
    }
    let m = 0.1 * warmth * factor.ln() + 1.0;
    Ok(own * m * m)
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn deepseek<A: DeepseekAxes>(config: &Config) -> Result<Deepseek<A>, ConfigError> {
    let eps = config.number("rms_norm_eps", 1e-6)?;
    let (experts, _) = moe::experts(config, &EXPERTS)?;
    let activation = config.activation("hidden_act", "silu")?;
    let pairing = if config.flag("rope_interleave", true)? { Pairing::Interleaved } else { Pairing::HalfSplit };
    let rope = Some(config.rotary(None)?);
    let options =
        AttentionOptions { causal: true, rope, pairing, scale: Some(scale(config)?), ..AttentionOptions::default() };
    let query_latent = config.count("q_lora_rank")?.is_some_and(|n| n > 0);
    let bias = config.flag("attention_bias", false)?;
    let dense = dense_layers(config)?;
    let (normed, scaling) = (config.flag("norm_topk_prob", true)?, config.number("routed_scaling_factor", 2.5)?);
    let grouped = groups(config)?.0 > 1;
    let shared = config.count("n_shared_experts")?.unwrap_or(1) > 0;
    let mlp = |i: usize| {
        if i < dense {
            return Either::Dense(SwiGlu::default().activation(activation));
        }
        Either::Sparse(DeepseekMoe {
            gate: Router { normed, scaling, grouped, ..Router::default() },
            experts: (0..experts).map(|_| SwiGlu::default()).collect(),
            shared_experts: shared.then(|| SwiGlu::default().activation(activation)),
            activation,
        })
    };
    let attention = || LatentAttention::new(options.clone(), query_latent, bias);
    let layers = (0..config.layers()?).map(|i| Block::new(attention(), mlp(i), eps)).collect();
    Ok(Decoder::new(layers, eps, config.flag("tie_word_embeddings", false)?))
}
