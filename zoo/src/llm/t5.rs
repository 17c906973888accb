//! T5, mT5, Flan-T5: an encoder-decoder with relative positions.
//!
//! Raffel et al. 2020 (<https://arxiv.org/abs/1910.10683>), as Hugging Face's `modeling_t5.py`.
//! Norms before each layer and at the end, no biases. Attention is not scaled; what tells positions
//! apart is a learned bias for each bucket of distances, which the first layer of a stack holds for
//! all of its layers. The first version has relu, and a head that is the embedding's table over a stream that is
//! scaled by `1 / sqrt(Hidden)`; version 1.1 has a gated feed-forward layer and a head of its own.

use super::block::Stream;
use super::config::{Config, ConfigError};
use super::encoder::Visible;
use super::seq2seq::{Memory, Seq2Seq, Source, SourceIds, TextSeq2Seq};
use super::{Batch, Context, Ids, Slots, Time};
use mobilis_runtime::nn::cache::KvCache;
use mobilis_runtime::nn::position::RelativeBias;
use mobilis_runtime::nn::{Activation, Embedding, Linear, RmsNorm};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::ops::elementwise::mul;
use mobilis_runtime::prelude::*;

axes! {
    /// What a T5 may choose.
    pub trait T5Axes {
        /// Tokens.
        Vocab,
        /// The width of the stream.
        Hidden,
        /// Heads of attention.
        Heads,
        /// Features of a head; together they need not be as wide as the stream.
        HeadDim,
        /// The width between the feed-forward products.
        Ffn,
        /// Buckets of distances.
        Buckets,
    }
    /// A T5 of sizes from a `config.json`.
    pub struct AnyT5: T5Axes;
}

/// Projections of attention, and in the first layer of a stack the bias by distance.
#[neural_module(no_default)]
pub struct Attention<A: T5Axes> {
    /// `[Heads * HeadDim, Hidden]`
    pub q: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Heads * HeadDim, Hidden]`
    pub k: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Heads * HeadDim, Hidden]`
    pub v: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Hidden, Heads * HeadDim]`
    pub o: Linear<Prod<A::Heads, A::HeadDim>, A::Hidden>,
    /// `[Buckets, Heads]`
    pub relative_attention_bias: Option<RelativeBias<A::Buckets, A::Heads>>,
}

/// Heads of queries, keys or values over positions `T`.
type Split<A, T> = Tensor<(Batch, T, <A as T5Axes>::Heads, <A as T5Axes>::HeadDim)>;

impl<A: T5Axes> Attention<A> {
    fn new(relative_attention_bias: Option<RelativeBias<A::Buckets, A::Heads>>) -> Self {
        let project = || Linear::default().no_bias();
        Attention { q: project(), k: project(), v: project(), o: Linear::default().no_bias(), relative_attention_bias }
    }

    fn queries<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Split<A, T> {
        self.q.forward(x).reshape()
    }

    fn keys_and_values<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> (Split<A, T>, Split<A, T>) {
        (self.k.forward(x).reshape(), self.v.forward(x).reshape())
    }

    fn join<T: Axis>(&self, y: Split<A, T>) -> Tensor<(Batch, T, A::Hidden)> {
        self.o.forward(y.reshape::<(Batch, T, Prod<A::Heads, A::HeadDim>)>())
    }
}

/// The feed-forward layer: `wo(act(wi x))`, or gated `wo(act(wi_0 x) * wi_1 x)`.
#[neural_module(no_default)]
pub struct FeedForward<A: T5Axes> {
    /// `[Ffn, Hidden]`
    pub wi: Option<Linear<A::Hidden, A::Ffn>>,
    /// `[Ffn, Hidden]`: the gate.
    pub wi_0: Option<Linear<A::Hidden, A::Ffn>>,
    /// `[Ffn, Hidden]`
    pub wi_1: Option<Linear<A::Hidden, A::Ffn>>,
    /// `[Hidden, Ffn]`
    pub wo: Linear<A::Ffn, A::Hidden>,
    /// What is between.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: T5Axes> FeedForward<A> {
    /// `[Batch, T, Hidden]` to the same.
    pub fn forward<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Hidden)> {
        let first = self.wi.as_ref().or(self.wi_0.as_ref()).expect("the constructor sets one of them");
        let mut inner = self.activation.apply(first.forward(x).raw());
        if let Some(linear) = &self.wi_1 {
            inner = mul(inner, linear.forward(x).raw());
        }
        self.wo.forward(Tensor::<(Batch, T, A::Ffn)>::from_raw(inner))
    }
}

/// A layer of the encoder.
#[neural_module(no_default)]
pub struct EncoderBlock<A: T5Axes> {
    /// Attention of the text to itself.
    #[name("layer.0.SelfAttention")]
    pub attention: Attention<A>,
    /// The norm before it.
    #[name("layer.0.layer_norm")]
    pub attention_norm: RmsNorm<A::Hidden>,
    /// The feed-forward layer.
    #[name("layer.1.DenseReluDense")]
    pub mlp: FeedForward<A>,
    /// The norm before it.
    #[name("layer.1.layer_norm")]
    pub mlp_norm: RmsNorm<A::Hidden>,
}

/// What encoders call their stream.
type Encoded<A> = Tensor<(Batch, Source, <A as T5Axes>::Hidden)>;

#[neural_module]
impl<A: T5Axes> EncoderBlock<A> {
    /// `[Batch, Source, Hidden]` to the same.
    pub fn forward(
        &self,
        x: Tensor<(Batch, Source, A::Hidden)>,
        bias: Tensor<(A::Heads, Source, Source)>,
        visible: Visible<Source>,
    ) -> Tensor<(Batch, Source, A::Hidden)> {
        let normed = self.attention_norm.forward(x);
        let q = self.attention.queries(normed);
        let (k, v) = self.attention.keys_and_values(normed);
        let seen = visible.limit_biased(attention(q, k, v).scale(1.0), bias).output();
        let x = x + self.attention.join(seen);
        x + self.mlp.forward(self.mlp_norm.forward(x))
    }
}

/// A layer of the decoder.
#[neural_module(no_default)]
pub struct DecoderBlock<A: T5Axes> {
    /// Attention of the text to itself.
    #[name("layer.0.SelfAttention")]
    pub attention: Attention<A>,
    /// The norm before it.
    #[name("layer.0.layer_norm")]
    pub attention_norm: RmsNorm<A::Hidden>,
    /// Attention to the source.
    #[name("layer.1.EncDecAttention")]
    pub cross: Attention<A>,
    /// The norm before it.
    #[name("layer.1.layer_norm")]
    pub cross_norm: RmsNorm<A::Hidden>,
    /// The feed-forward layer.
    #[name("layer.2.DenseReluDense")]
    pub mlp: FeedForward<A>,
    /// The norm before it.
    #[name("layer.2.layer_norm")]
    pub mlp_norm: RmsNorm<A::Hidden>,
}

/// The bias of a decoder's attention to itself: over the tokens of a whole text, or over a cache.
#[derive(Clone, Copy)]
pub enum SelfBias<N: Axis> {
    /// `[Heads, Time, Time]`
    Whole(Tensor<(N, Time, Time)>),
    /// `[Batch, Heads, Time, Slots]`, and the position of each sequence's first token.
    Cached(Tensor<(Batch, N, Time, Slots)>, Tensor<(Batch,), Index>),
}

#[neural_module]
impl<A: T5Axes> DecoderBlock<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(
        &self,
        x: Stream<A::Hidden>,
        bias: &SelfBias<A::Heads>,
        memory: KvCache<Batch, Source, A::Heads, A::HeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let normed = self.attention_norm.forward(x);
        let q = self.attention.queries(normed);
        let (k, v) = self.attention.keys_and_values(normed);
        let seen = match *bias {
            SelfBias::Whole(bias) => attention(q, k, v).scale(1.0).causal().bias(bias).output(),
            SelfBias::Cached(bias, start) => {
                let k = cx.keep("keys", k).expect("a bias over a cache comes with one");
                let v = cx.keep("values", v).expect("a bias over a cache comes with one");
                attention(q, k, v).scale(1.0).causal().offsets(start).bias(bias).output()
            }
        };
        let x = x + self.attention.join(seen);
        let q = self.cross.queries(self.cross_norm.forward(x));
        let seen = visible.limit(attention(q, memory.keys, memory.values).scale(1.0)).output();
        let x = x + self.cross.join(seen);
        x + self.mlp.forward(self.mlp_norm.forward(x))
    }
}

/// Layers between an embedding and a norm.
#[neural_module(no_default)]
pub struct Stack<A: T5Axes, B: Module> {
    /// `[Vocab, Hidden]`: the model's.
    pub embed_tokens: Embedding<A::Vocab, A::Hidden>,
    /// The layers, in order.
    pub block: Vec<B>,
    /// The norm after the last layer.
    pub final_layer_norm: RmsNorm<A::Hidden>,
}

/// T5 with its head.
#[neural_module(no_default)]
pub struct T5<A: T5Axes> {
    /// `[Vocab, Hidden]`
    pub shared: Embedding<A::Vocab, A::Hidden>,
    /// The encoder.
    pub encoder: Stack<A, EncoderBlock<A>>,
    /// The decoder.
    pub decoder: Stack<A, DecoderBlock<A>>,
    /// `[Vocab, Hidden]`: the embedding's table where it is tied.
    pub lm_head: Linear<A::Hidden, A::Vocab>,
    /// Whether the stream is scaled by `1 / sqrt(Hidden)` before the head: the factor.
    #[hyper]
    pub output_scale: Option<f64>,
}

impl<A: T5Axes> TextSeq2Seq for T5<A> {
    fn encode(&self, ids: SourceIds, visible: Visible<Source>, cx: &Context) -> Encoded<A> {
        let mut x = cx.note(self.encoder.embed_tokens.forward(ids));
        let bias = relative(&self.encoder.block[0].attention).bias();
        for (i, layer) in self.encoder.block.iter().enumerate() {
            x = layer.forward(x, bias, visible);
            if i + 1 < self.encoder.block.len() {
                x = cx.note(x);
            }
        }
        cx.note(self.encoder.final_layer_norm.forward(x))
    }
}

impl<A: T5Axes> Seq2Seq for T5<A> {
    type Hidden = A::Hidden;
    type Vocab = A::Vocab;
    type Heads = A::Heads;
    type HeadDim = A::HeadDim;

    fn memory<S: Axis>(&self, source: Tensor<(Batch, S, A::Hidden)>) -> Memory<A::Heads, A::HeadDim, S> {
        let keep = |layer: &DecoderBlock<A>| {
            let (keys, values) = layer.cross.keys_and_values(source);
            KvCache::new(keys, values)
        };
        self.decoder.block.iter().map(keep).collect()
    }

    fn depth(&self) -> usize {
        self.decoder.block.len()
    }

    fn decode(
        &self,
        ids: Ids,
        memory: &Memory<A::Heads, A::HeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let mut x = cx.note(self.decoder.embed_tokens.forward(ids));
        let relative = relative(&self.decoder.block[0].attention);
        let bias = match cx.start() {
            None => SelfBias::Whole(relative.bias()),
            Some(start) => SelfBias::Cached(relative.bias_at(cx.positions()), start),
        };
        for (i, (layer, memory)) in self.decoder.block.iter().zip(memory).enumerate() {
            x = layer.forward(x, &bias, *memory, visible, &cx.layer(i));
            if i + 1 < self.decoder.block.len() {
                x = cx.note(x);
            }
        }
        cx.note(self.decoder.final_layer_norm.forward(x))
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Vocab)> {
        self.lm_head.forward(match self.output_scale {
            Some(scale) => x * scale,
            None => x,
        })
    }
}

fn relative<A: T5Axes>(first: &Attention<A>) -> &RelativeBias<A::Buckets, A::Heads> {
    first.relative_attention_bias.as_ref().expect("the constructor gives it to the first layer of a stack")
}

/// The sizes that a configuration gives to a T5's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: T5Axes>(config: &Config) -> Result<Sizes, ConfigError> {
    const BUCKETS: &str = "relative_attention_num_buckets";
    let buckets = config.count(BUCKETS)?.unwrap_or(32);
    // Half of an encoder's buckets are for later keys, and half of each half for near ones.
    if buckets < 4 || buckets % 2 != 0 {
        return Err(config.wrong(BUCKETS, "an even number of at least 4"));
    }
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Hidden>(config.size("d_model")?)
        .with::<A::Heads>(config.size("num_heads")?)
        .with::<A::HeadDim>(config.size("d_kv")?)
        .with::<A::Ffn>(config.size("d_ff")?)
        .with::<A::Buckets>(buckets))
}

/// The distance from which on all are one bucket.
fn max_distance(config: &Config) -> Result<u32, ConfigError> {
    const KEY: &str = "relative_attention_max_distance";
    let near = config.count("relative_attention_num_buckets")?.unwrap_or(32) / 2;
    let found = config.count(KEY)?.unwrap_or(128);
    let fits = u32::try_from(found).ok().filter(|n| *n as usize > near);
    fits.ok_or_else(|| config.wrong(KEY, format!("more than half of the buckets, {near}")))
}

/// The feed-forward layer of a configuration: `feed_forward_proj` is an activation, or one behind
/// `gated-`.
fn feed_forward<A: T5Axes>(config: &Config) -> Result<FeedForward<A>, ConfigError> {
    const KEY: &str = "feed_forward_proj";
    let name = config.word(KEY)?.unwrap_or("relu");
    let (gated, name) = match name.strip_prefix("gated-") {
        // The first gated checkpoints meant the approximation.
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, name),
    };
    let activation = Config::new("", serde_json::json!({ KEY: name })).activation(KEY, "relu");
    let expected = "an activation (relu, gelu_new, silu, ...) or `gated-` and one";
    let activation = activation.map_err(|_| config.wrong(KEY, expected))?;
    let linear = |wanted: bool| wanted.then(|| Linear::default().no_bias());
    let wo = Linear::default().no_bias();
    Ok(FeedForward { wi: linear(!gated), wi_0: linear(gated), wi_1: linear(gated), wo, activation })
}

/// The module that a configuration describes. `own_head` says whether the checkpoint has a head
/// (`lm_head.weight`).
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn t5<A: T5Axes>(config: &Config, own_head: bool) -> Result<T5<A>, ConfigError> {
    let eps = config.number("layer_norm_epsilon", 1e-6)?;
    let max_distance = max_distance(config)?;
    let depth = |key: &str| match config.size(key)? {
        n if n <= 10_000 => Ok(n),
        _ => Err(config.wrong(key, "at most 10000 layers")),
    };
    let layers = depth("num_layers")?;
    let decoder_layers = if config.get("num_decoder_layers").is_some() { depth("num_decoder_layers")? } else { layers };
    let tied = config.flag("tie_word_embeddings", true)?;
    let scaled = config.flag("scale_decoder_outputs", tied)?;
    let norm = || RmsNorm::default().eps(eps);
    let bias = |i: usize, bidirectional: bool| {
        (i == 0).then(|| RelativeBias { bidirectional, max_distance, ..RelativeBias::default() })
    };
    let encoder = |i| {
        let (attention, mlp) = (Attention::new(bias(i, true)), feed_forward(config)?);
        Ok(EncoderBlock { attention, attention_norm: norm(), mlp, mlp_norm: norm() })
    };
    let decoder = |i| {
        let (attention, mlp) = (Attention::new(bias(i, false)), feed_forward(config)?);
        let (cross, cross_norm) = (Attention::new(None), norm());
        Ok(DecoderBlock { attention, attention_norm: norm(), cross, cross_norm, mlp, mlp_norm: norm() })
    };
    let shared = Embedding::<A::Vocab, A::Hidden>::default();
    let table = || Embedding { weight: shared.weight.tie() };
    // transformers 5 ties always, and tells a head of its own by `scale_decoder_outputs` alone.
    let own = !scaled && (own_head || !tied);
    let weight = if own { Param::default() } else { shared.weight.tie() };
    let hidden = config.size("d_model")? as f64;
    Ok(T5 {
        encoder: Stack {
            embed_tokens: table(),
            block: (0..layers).map(encoder).collect::<Result<_, ConfigError>>()?,
            final_layer_norm: norm(),
        },
        decoder: Stack {
            embed_tokens: table(),
            block: (0..decoder_layers).map(decoder).collect::<Result<_, ConfigError>>()?,
            final_layer_norm: norm(),
        },
        lm_head: Linear { weight, bias: None },
        output_scale: scaled.then(|| hidden.powf(-0.5)),
        shared,
    })
}
