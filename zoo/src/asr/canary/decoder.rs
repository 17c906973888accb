//! The decoder: NeMo's `TransformerDecoderNM` with its `TokenClassifier`.
//!
//! Norms before each part and at the end, sinusoids for positions (a table of the checkpoint, scaled by
//! `1 / sqrt(Hidden)` there), relu between the feed-forward products, and a head that is the embedding's
//! table with a bias.

use crate::llm::block::Stream;
use crate::llm::config::{Config, ConfigError};
use crate::llm::encoder::Visible;
use crate::llm::seq2seq::{Memory, Seq2Seq, Source};
use crate::llm::{Batch, Context, Ids, Time};
use mobilis_runtime::nn::cache::KvCache;
use mobilis_runtime::nn::{AttentionOptions, Embedding, LayerNorm, Linear};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::prelude::*;

axes! {
    /// What a Canary's decoder may choose.
    pub trait CanaryAxes {
        /// Tokens.
        Vocab,
        /// Positions that there are vectors for.
        Positions,
        /// The width of the encoder's stream.
        Heard,
        /// The width of the decoder's.
        Hidden,
        /// Heads of attention.
        Heads,
        /// Features of a head.
        HeadDim,
        /// The width between the feed-forward products.
        Ffn,
    }
    /// A decoder of sizes from a configuration.
    pub struct AnyCanary: CanaryAxes;
}

/// All heads' features.
type Joined<A> = Prod<<A as CanaryAxes>::Heads, <A as CanaryAxes>::HeadDim>;
/// Queries, keys or values.
type Split<A, T> = Tensor<(Batch, T, <A as CanaryAxes>::Heads, <A as CanaryAxes>::HeadDim)>;

/// Projections of attention.
#[neural_module]
pub struct Attention<A: CanaryAxes> {
    /// `[Heads * HeadDim, Hidden]`
    pub query_net: Linear<A::Hidden, Joined<A>>,
    /// `[Heads * HeadDim, Hidden]`
    pub key_net: Linear<A::Hidden, Joined<A>>,
    /// `[Heads * HeadDim, Hidden]`
    pub value_net: Linear<A::Hidden, Joined<A>>,
    /// `[Hidden, Heads * HeadDim]`
    pub out_projection: Linear<Joined<A>, A::Hidden>,
}

impl<A: CanaryAxes> Attention<A> {
    fn queries<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Split<A, T> {
        self.query_net.forward(x).reshape()
    }

    fn keys_and_values<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> KvCache<Batch, T, A::Heads, A::HeadDim> {
        KvCache::new(self.key_net.forward(x).reshape(), self.value_net.forward(x).reshape())
    }

    fn join<T: Axis>(&self, y: Split<A, T>) -> Tensor<(Batch, T, A::Hidden)> {
        self.out_projection.forward(y.reshape::<(Batch, T, Joined<A>)>())
    }
}

/// `dense_out(relu(dense_in x))`.
#[neural_module]
pub struct FeedForward<A: CanaryAxes> {
    /// `[Ffn, Hidden]`
    pub dense_in: Linear<A::Hidden, A::Ffn>,
    /// `[Hidden, Ffn]`
    pub dense_out: Linear<A::Ffn, A::Hidden>,
}

/// A layer.
#[neural_module]
pub struct DecoderLayer<A: CanaryAxes> {
    /// The norm before attention to the text.
    pub layer_norm_1: LayerNorm<A::Hidden>,
    /// Attention of the text to itself.
    pub first_sub_layer: Attention<A>,
    /// The norm before attention to the sound.
    pub layer_norm_2: LayerNorm<A::Hidden>,
    /// Attention to the sound.
    pub second_sub_layer: Attention<A>,
    /// The norm before the feed-forward layer.
    pub layer_norm_3: LayerNorm<A::Hidden>,
    /// The feed-forward layer.
    pub third_sub_layer: FeedForward<A>,
}

#[neural_module]
impl<A: CanaryAxes> DecoderLayer<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(
        &self,
        x: Stream<A::Hidden>,
        memory: KvCache<Batch, Source, A::Heads, A::HeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
        let normed = self.layer_norm_1.forward(x);
        let own = self.first_sub_layer.keys_and_values(normed);
        // Each head of keys and values has one head of queries.
        let q = self.first_sub_layer.queries(normed).reshape::<(Batch, Time, A::Heads, Const<1>, A::HeadDim)>();
        let x = x + self.first_sub_layer.join(cx.attend(q, own.keys, own.values, &options).reshape());
        let q = self.second_sub_layer.queries(self.layer_norm_2.forward(x));
        let seen = visible.limit(attention(q, memory.keys, memory.values)).output();
        let x = x + self.second_sub_layer.join(seen);
        let inner = self.third_sub_layer.dense_in.forward(self.layer_norm_3.forward(x)).relu();
        x + self.third_sub_layer.dense_out.forward(inner)
    }
}

/// Tokens and positions to the stream.
#[neural_module(no_default)]
pub struct Embeddings<A: CanaryAxes> {
    /// `[Vocab, Hidden]`
    pub token_embedding: Embedding<A::Vocab, A::Hidden>,
    /// `[Positions, Hidden]`: sinusoids.
    #[name("position_embedding.pos_enc")]
    pub positions: Buffer<(A::Positions, A::Hidden)>,
    /// The norm of their sum.
    pub layer_norm: LayerNorm<A::Hidden>,
}

/// The layers and the norm behind them.
#[neural_module(no_default)]
pub struct Layers<A: CanaryAxes> {
    /// The layers, in order.
    pub layers: Vec<DecoderLayer<A>>,
    /// The norm after the last.
    pub final_layer_norm: LayerNorm<A::Hidden>,
}

/// The decoder with its head.
#[neural_module(no_default)]
pub struct CanaryDecoder<A: CanaryAxes> {
    /// `[Hidden, Heard]`: where the encoder's stream has another width.
    pub encoder_decoder_proj: Option<Linear<A::Heard, A::Hidden>>,
    /// Tokens and positions.
    #[name("transf_decoder._embedding")]
    pub embedding: Embeddings<A>,
    /// The layers.
    #[name("transf_decoder._decoder")]
    pub decoder: Layers<A>,
    /// `[Vocab, Hidden]`: the embedding's table, and a bias.
    #[name("log_softmax.mlp.layer0")]
    pub head: Linear<A::Hidden, A::Vocab>,
}

impl<A: CanaryAxes> CanaryDecoder<A> {
    /// The encoder's stream as the decoder takes it.
    pub fn project<S: Axis>(&self, x: Tensor<(Batch, S, A::Heard)>) -> Tensor<(Batch, S, A::Hidden)> {
        match &self.encoder_decoder_proj {
            Some(layer) => layer.forward(x),
            // Both have one size, which is checked when it is bound.
            None => x.slice(A::Heard::AXIS, A::Hidden::AXIS, 0),
        }
    }
}

impl<A: CanaryAxes> Seq2Seq for CanaryDecoder<A> {
    type Hidden = A::Hidden;
    type Vocab = A::Vocab;
    type Heads = A::Heads;
    type HeadDim = A::HeadDim;

    fn memory<S: Axis>(&self, source: Tensor<(Batch, S, A::Hidden)>) -> Memory<A::Heads, A::HeadDim, S> {
        self.decoder.layers.iter().map(|layer| layer.second_sub_layer.keys_and_values(source)).collect()
    }

    fn depth(&self) -> usize {
        self.decoder.layers.len()
    }

    fn decode(
        &self,
        ids: Ids,
        memory: &Memory<A::Heads, A::HeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let tokens = self.embedding.token_embedding.forward(ids);
        let places: Stream<A::Hidden> = cx.positions().embedding(self.embedding.positions.get());
        let mut x = self.embedding.layer_norm.forward(tokens + places);
        for (i, (layer, memory)) in self.decoder.layers.iter().zip(memory).enumerate() {
            x = layer.forward(x, *memory, visible, &cx.layer(i));
        }
        self.decoder.final_layer_norm.forward(x)
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Vocab)> {
        self.head.forward(x)
    }
}

/// What NeMo's `transf_decoder` and `head` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSettings {
    /// Tokens.
    pub vocab: usize,
    /// Positions.
    pub positions: usize,
    /// The width of the encoder's stream.
    pub heard: usize,
    /// The width of the decoder's.
    pub hidden: usize,
    /// Heads.
    pub heads: usize,
    /// The width between the feed-forward products.
    pub ffn: usize,
    /// Layers.
    pub layers: usize,
}

impl DecoderSettings {
    /// The settings of a model's configuration; `heard` is the width of its encoder's stream.
    ///
    /// # Errors
    /// Settings that are missing, make no sense, or that this decoder does not have.
    pub fn of(config: &Config, heard: usize) -> Result<DecoderSettings, ConfigError> {
        let part = config.inner("transf_decoder").ok_or_else(|| config.missing("transf_decoder"))?;
        let part = part.inner("config_dict").unwrap_or(part);
        if config.inner("transf_encoder").is_some_and(|e| e.count("num_layers").ok().flatten().unwrap_or(0) > 0) {
            return Err(config.wrong("transf_encoder", "none (`num_layers: 0`), as published Canaries have it"));
        }
        if !part.flag("pre_ln", true)? || part.flag("learn_positional_encodings", false)? {
            return Err(part.wrong("pre_ln", "true, with fixed positions"));
        }
        if part.word("hidden_act")?.is_some_and(|word| word != "relu") {
            return Err(part.wrong("hidden_act", "relu"));
        }
        let head = config.inner("head").ok_or_else(|| config.missing("head"))?;
        if head.count("num_layers")?.unwrap_or(1) != 1 {
            return Err(head.wrong("num_layers", "1"));
        }
        let vocab = match part.get("vocab_size").and_then(serde_json::Value::as_u64) {
            Some(_) => part.size("vocab_size")?,
            None => head.size("num_classes")?,
        };
        let (hidden, heads) = (part.size("hidden_size")?, part.size("num_attention_heads")?);
        if hidden % heads != 0 {
            return Err(part.wrong("num_attention_heads", format!("a divisor of the width, {hidden}")));
        }
        let layers = part.size("num_layers")?;
        if layers > 1000 {
            return Err(part.wrong("num_layers", "at most 1000"));
        }
        let positions = part.count("max_sequence_length")?.unwrap_or(512);
        Ok(DecoderSettings { vocab, positions, heard, hidden, heads, ffn: part.size("inner_size")?, layers })
    }

    /// The sizes of the decoder's axes.
    pub fn sizes<A: CanaryAxes>(&self) -> Sizes {
        Sizes::new()
            .with::<A::Vocab>(self.vocab)
            .with::<A::Positions>(self.positions)
            .with::<A::Heard>(self.heard)
            .with::<A::Hidden>(self.hidden)
            .with::<A::Heads>(self.heads)
            .with::<A::HeadDim>(self.hidden / self.heads)
            .with::<A::Ffn>(self.ffn)
    }

    /// The module.
    pub fn module<A: CanaryAxes>(&self) -> CanaryDecoder<A> {
        let token_embedding = Embedding::<A::Vocab, A::Hidden>::default();
        let head = Linear { weight: token_embedding.weight.tie(), ..Linear::default() };
        CanaryDecoder {
            encoder_decoder_proj: (self.heard != self.hidden).then(Linear::default),
            embedding: Embeddings { token_embedding, positions: Buffer::default(), layer_norm: LayerNorm::default() },
            decoder: Layers {
                layers: (0..self.layers).map(|_| DecoderLayer::default()).collect(),
                final_layer_norm: LayerNorm::default(),
            },
            head,
        }
    }
}
