//! BART: an encoder-decoder with learned positions and norms after each addition.
//!
//! Lewis et al. 2019 (<https://arxiv.org/abs/1910.13461>), as Hugging Face's `modeling_bart.py`.
//! Position `p` has row `p + 2` of its table, as the original code kept two rows for padding. The
//! head is the embedding's table, with a bias that checkpoints hold beside the parameters
//! (`final_logits_bias`). Encoder and decoder may differ in heads and in feed-forward width.

use super::block::Stream;
use super::config::{Config, ConfigError, Heads};
use super::encoder::Visible;
use super::seq2seq::{Memory, Seq2Seq, Source, SourceIds, TextSeq2Seq};
use super::{Batch, Context, Ids, Time};
use mobilis_runtime::Extent;
use mobilis_runtime::nn::cache::KvCache;
use mobilis_runtime::nn::{Activation, AttentionOptions, Embedding, LayerNorm, Linear};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::ops::slice;
use mobilis_runtime::prelude::*;

/// Rows of a table of positions before that of position 0.
const OFFSET: usize = 2;

axes! {
    /// What a BART may choose.
    pub trait BartAxes {
        /// Tokens.
        Vocab,
        /// Rows of a table of positions: two more than there are positions.
        Positions,
        /// The width of the stream.
        Hidden,
        /// Heads of the encoder's attention.
        EncoderHeads,
        /// Features of such a head.
        EncoderHeadDim,
        /// The width between the encoder's feed-forward products.
        EncoderFfn,
        /// Heads of the decoder's attention.
        DecoderHeads,
        /// Features of such a head.
        DecoderHeadDim,
        /// The width between the decoder's feed-forward products.
        DecoderFfn,
    }
    /// A BART of sizes from a `config.json`.
    pub struct AnyBart: BartAxes;
}

/// Projections of attention, with biases.
#[neural_module]
pub struct Attention<H: Axis, N: Axis, D: Axis> {
    /// `[N * D, H]`
    pub q_proj: Linear<H, Prod<N, D>>,
    /// `[N * D, H]`
    pub k_proj: Linear<H, Prod<N, D>>,
    /// `[N * D, H]`
    pub v_proj: Linear<H, Prod<N, D>>,
    /// `[H, N * D]`
    pub out_proj: Linear<Prod<N, D>, H>,
}

impl<H: Axis, N: Axis, D: Axis> Attention<H, N, D> {
    pub(crate) fn queries<T: Axis>(&self, x: Tensor<(Batch, T, H)>) -> Tensor<(Batch, T, N, D)> {
        self.q_proj.forward(x).reshape()
    }

    pub(crate) fn keys_and_values<T: Axis>(&self, x: Tensor<(Batch, T, H)>) -> KvCache<Batch, T, N, D> {
        KvCache::new(self.k_proj.forward(x).reshape(), self.v_proj.forward(x).reshape())
    }

    pub(crate) fn join<T: Axis>(&self, y: Tensor<(Batch, T, N, D)>) -> Tensor<(Batch, T, H)> {
        self.out_proj.forward(y.reshape::<(Batch, T, Prod<N, D>)>())
    }
}

/// A layer of the encoder.
#[neural_module(no_default)]
pub struct EncoderLayer<A: BartAxes> {
    /// Attention of the text to itself.
    pub self_attn: Attention<A::Hidden, A::EncoderHeads, A::EncoderHeadDim>,
    /// The norm after it.
    pub self_attn_layer_norm: LayerNorm<A::Hidden>,
    /// `[EncoderFfn, Hidden]`
    pub fc1: Linear<A::Hidden, A::EncoderFfn>,
    /// `[Hidden, EncoderFfn]`
    pub fc2: Linear<A::EncoderFfn, A::Hidden>,
    /// The norm after the feed-forward layer.
    pub final_layer_norm: LayerNorm<A::Hidden>,
    /// What is between `fc1` and `fc2`.
    #[hyper]
    pub activation: Activation,
}

/// What encoders call their stream.
type Encoded<A> = Tensor<(Batch, Source, <A as BartAxes>::Hidden)>;

#[neural_module]
impl<A: BartAxes> EncoderLayer<A> {
    /// `[Batch, Source, Hidden]` to the same.
    pub fn forward(
        &self,
        x: Tensor<(Batch, Source, A::Hidden)>,
        visible: Visible<Source>,
    ) -> Tensor<(Batch, Source, A::Hidden)> {
        let q = self.self_attn.queries(x);
        let own = self.self_attn.keys_and_values(x);
        let seen = visible.limit(attention(q, own.keys, own.values)).output();
        let x = self.self_attn_layer_norm.forward(x + self.self_attn.join(seen));
        let inner: Tensor<(Batch, Source, A::EncoderFfn)> =
            Tensor::from_raw(self.activation.apply(self.fc1.forward(x).raw()));
        self.final_layer_norm.forward(x + self.fc2.forward(inner))
    }
}

/// A layer of the decoder.
#[neural_module(no_default)]
pub struct DecoderLayer<A: BartAxes> {
    /// Attention of the text to itself.
    pub self_attn: Attention<A::Hidden, A::DecoderHeads, A::DecoderHeadDim>,
    /// The norm after it.
    pub self_attn_layer_norm: LayerNorm<A::Hidden>,
    /// Attention to the source.
    pub encoder_attn: Attention<A::Hidden, A::DecoderHeads, A::DecoderHeadDim>,
    /// The norm after it.
    pub encoder_attn_layer_norm: LayerNorm<A::Hidden>,
    /// `[DecoderFfn, Hidden]`
    pub fc1: Linear<A::Hidden, A::DecoderFfn>,
    /// `[Hidden, DecoderFfn]`
    pub fc2: Linear<A::DecoderFfn, A::Hidden>,
    /// The norm after the feed-forward layer.
    pub final_layer_norm: LayerNorm<A::Hidden>,
    /// What is between `fc1` and `fc2`.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: BartAxes> DecoderLayer<A> {
    /// `[Batch, Time, Hidden]` to the same.
    pub fn forward(
        &self,
        x: Stream<A::Hidden>,
        memory: KvCache<Batch, Source, A::DecoderHeads, A::DecoderHeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
        let q = self.self_attn.queries(x);
        let own = self.self_attn.keys_and_values(x);
        // Each head of keys and values has one head of queries.
        let q = q.reshape::<(Batch, Time, A::DecoderHeads, Const<1>, A::DecoderHeadDim)>();
        let seen = cx.attend(q, own.keys, own.values, &options).reshape();
        let x = self.self_attn_layer_norm.forward(x + self.self_attn.join(seen));
        let q = self.encoder_attn.queries(x);
        let seen = visible.limit(attention(q, memory.keys, memory.values)).output();
        let x = self.encoder_attn_layer_norm.forward(x + self.encoder_attn.join(seen));
        let inner: Tensor<(Batch, Time, A::DecoderFfn)> =
            Tensor::from_raw(self.activation.apply(self.fc1.forward(x).raw()));
        self.final_layer_norm.forward(x + self.fc2.forward(inner))
    }
}

/// Layers behind the embeddings of token and position.
#[neural_module(no_default)]
pub struct Stack<A: BartAxes, L: Module> {
    /// `[Vocab, Hidden]`: the model's.
    pub embed_tokens: Embedding<A::Vocab, A::Hidden>,
    /// `[Positions, Hidden]`
    pub embed_positions: Embedding<A::Positions, A::Hidden>,
    /// The layers, in order.
    pub layers: Vec<L>,
    /// The norm of what enters the first layer.
    pub layernorm_embedding: LayerNorm<A::Hidden>,
}

/// An encoder and a decoder over one embedding.
#[neural_module(no_default)]
pub struct Bart<A: BartAxes> {
    /// `[Vocab, Hidden]`
    pub shared: Embedding<A::Vocab, A::Hidden>,
    /// The encoder.
    pub encoder: Stack<A, EncoderLayer<A>>,
    /// The decoder.
    pub decoder: Stack<A, DecoderLayer<A>>,
    /// What embeddings are multiplied by.
    pub scale: f64,
}

/// BART with its head.
#[neural_module(no_default)]
pub struct BartWithHead<A: BartAxes> {
    /// All but the head.
    pub model: Bart<A>,
    /// `[Vocab, Hidden]`: the embedding's table where it is tied.
    pub lm_head: Linear<A::Hidden, A::Vocab>,
    /// `[1, Vocab]`: added to the logits.
    pub final_logits_bias: Option<Buffer<(Const<1>, A::Vocab)>>,
}

impl<A: BartAxes> TextSeq2Seq for BartWithHead<A> {
    fn encode(&self, ids: SourceIds, visible: Visible<Source>, cx: &Context) -> Encoded<A> {
        let encoder = &self.model.encoder;
        let table = encoder.embed_positions.weight.get().raw();
        let rows = slice::slice(table, 0, Extent::constant(OFFSET as u64), 1, Source::dim());
        let tokens = encoder.embed_tokens.forward(ids) * self.model.scale;
        let x = tokens + Tensor::<(Source, A::Hidden)>::from_raw(rows);
        let mut x = cx.note(encoder.layernorm_embedding.forward(x));
        for layer in &encoder.layers {
            x = cx.note(layer.forward(x, visible));
        }
        x
    }
}

impl<A: BartAxes> Seq2Seq for BartWithHead<A> {
    type Hidden = A::Hidden;
    type Vocab = A::Vocab;
    type Heads = A::DecoderHeads;
    type HeadDim = A::DecoderHeadDim;

    fn memory<S: Axis>(&self, source: Tensor<(Batch, S, A::Hidden)>) -> Memory<A::DecoderHeads, A::DecoderHeadDim, S> {
        self.model.decoder.layers.iter().map(|layer| layer.encoder_attn.keys_and_values(source)).collect()
    }

    fn depth(&self) -> usize {
        self.model.decoder.layers.len()
    }

    fn decode(
        &self,
        ids: Ids,
        memory: &Memory<A::DecoderHeads, A::DecoderHeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<A::Hidden> {
        let decoder = &self.model.decoder;
        let places = decoder.embed_positions.forward(cx.positions() + OFFSET as i32);
        let x = decoder.embed_tokens.forward(ids) * self.model.scale + places;
        let mut x = cx.note(decoder.layernorm_embedding.forward(x));
        for (i, (layer, memory)) in decoder.layers.iter().zip(memory).enumerate() {
            x = cx.note(layer.forward(x, *memory, visible, &cx.layer(i)));
        }
        x
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Vocab)> {
        let logits = self.lm_head.forward(x);
        match &self.final_logits_bias {
            Some(bias) => logits + bias.get().reshape::<(A::Vocab,)>(),
            None => logits,
        }
    }
}

/// Heads of one side: their number, and their features.
fn heads(config: &Config, key: &str) -> Result<Heads, ConfigError> {
    let (all, hidden) = (config.size(key)?, config.size("d_model")?);
    match hidden % all {
        0 => Ok(Heads { all, kv: all, groups: 1, dim: hidden / all }),
        _ => Err(config.wrong(key, format!("a divisor of `d_model`, {hidden}"))),
    }
}

/// The sizes that a configuration gives to a BART's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: BartAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let (encoder, decoder) = (heads(config, "encoder_attention_heads")?, heads(config, "decoder_attention_heads")?);
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Positions>(config.size("max_position_embeddings")? + OFFSET)
        .with::<A::Hidden>(config.size("d_model")?)
        .with::<A::EncoderHeads>(encoder.all)
        .with::<A::EncoderHeadDim>(encoder.dim)
        .with::<A::EncoderFfn>(config.size("encoder_ffn_dim")?)
        .with::<A::DecoderHeads>(decoder.all)
        .with::<A::DecoderHeadDim>(decoder.dim)
        .with::<A::DecoderFfn>(config.size("decoder_ffn_dim")?))
}

/// The module that a configuration describes. `bias` says whether the checkpoint has a
/// `final_logits_bias`.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn bart<A: BartAxes>(config: &Config, bias: bool) -> Result<BartWithHead<A>, ConfigError> {
    let activation = config.activation("activation_function", "gelu")?;
    let depth = |key: &str| match config.size(key)? {
        n if n <= 10_000 => Ok(n),
        _ => Err(config.wrong(key, "at most 10000 layers")),
    };
    let shared = Embedding::<A::Vocab, A::Hidden>::default();
    let table = || Embedding { weight: shared.weight.tie() };
    let encoder = |_| EncoderLayer {
        self_attn: Attention::default(),
        self_attn_layer_norm: LayerNorm::default(),
        fc1: Linear::default(),
        fc2: Linear::default(),
        final_layer_norm: LayerNorm::default(),
        activation,
    };
    let decoder = |_| DecoderLayer {
        self_attn: Attention::default(),
        self_attn_layer_norm: LayerNorm::default(),
        encoder_attn: Attention::default(),
        encoder_attn_layer_norm: LayerNorm::default(),
        fc1: Linear::default(),
        fc2: Linear::default(),
        final_layer_norm: LayerNorm::default(),
        activation,
    };
    let encoder = Stack {
        embed_tokens: table(),
        embed_positions: Embedding::default(),
        layers: (0..depth("encoder_layers")?).map(encoder).collect(),
        layernorm_embedding: LayerNorm::default(),
    };
    let decoder = Stack {
        embed_tokens: table(),
        embed_positions: Embedding::default(),
        layers: (0..depth("decoder_layers")?).map(decoder).collect(),
        layernorm_embedding: LayerNorm::default(),
    };
    let scaled = config.flag("scale_embedding", false)?;
    let scale = if scaled { (config.size("d_model")? as f64).sqrt() } else { 1.0 };
    let tied = config.flag("tie_word_embeddings", true)?;
    let weight = if tied { shared.weight.tie() } else { Param::default() };
    Ok(BartWithHead {
        lm_head: Linear { weight, bias: None },
        final_logits_bias: bias.then(Buffer::default),
        model: Bart { shared, encoder, decoder, scale },
    })
}
