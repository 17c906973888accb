//! Whisper's encoder and decoder as modules.
//!
//! Radford et al. 2022 (<https://arxiv.org/abs/2212.04356>), as Hugging Face's `modeling_whisper.py`,
//! whose parameter names are kept. Two convolutions halve the frames of a log-mel spectrogram; fixed
//! sinusoids are added, which checkpoints hold as a table; the layers normalise first. The decoder has
//! learned positions, attends to itself and to the encoder's stream, and its head is the embedding's
//! table. Projections of keys have no bias.

use crate::llm::bart::Attention;
use crate::llm::block::Stream;
use crate::llm::config::{Config, ConfigError, Heads};
use crate::llm::encoder::Visible;
use crate::llm::seq2seq::{Memory, Seq2Seq, Source};
use crate::llm::{Batch, Context, Ids, Time};
use mobilis_runtime::Extent;
use mobilis_runtime::nn::cache::KvCache;
use mobilis_runtime::nn::{Activation, AttentionOptions, Conv1d, Embedding, LayerNorm, Linear, SameConv1d};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::ops::{movement, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// What a Whisper may choose.
    pub trait WhisperAxes {
        /// Tokens.
        Vocab,
        /// Bands of the spectrogram: 80, or 128 of the third large model.
        Bands,
        /// Positions of the encoder: half as many as a window has frames.
        EncoderPositions,
        /// Positions of the decoder.
        DecoderPositions,
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
    /// A Whisper of sizes from a `config.json`.
    pub struct AnyWhisper: WhisperAxes;
}

/// The encoder's positions of `F` frames.
pub type Halved<F> = Conv<F, 3, 2, 1>;

/// A layer of the encoder.
#[neural_module(no_default)]
pub struct EncoderLayer<A: WhisperAxes> {
    /// Attention of the sound to itself.
    pub self_attn: Attention<A::Hidden, A::EncoderHeads, A::EncoderHeadDim>,
    /// The norm before it.
    pub self_attn_layer_norm: LayerNorm<A::Hidden>,
    /// `[EncoderFfn, Hidden]`
    pub fc1: Linear<A::Hidden, A::EncoderFfn>,
    /// `[Hidden, EncoderFfn]`
    pub fc2: Linear<A::EncoderFfn, A::Hidden>,
    /// The norm before the feed-forward layer.
    pub final_layer_norm: LayerNorm<A::Hidden>,
    /// What is between `fc1` and `fc2`.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: WhisperAxes> EncoderLayer<A> {
    /// `[Batch, S, Hidden]` to the same.
    pub fn forward<S: Axis>(&self, x: Tensor<(Batch, S, A::Hidden)>) -> Tensor<(Batch, S, A::Hidden)> {
        let normed = self.self_attn_layer_norm.forward(x);
        let q = self.self_attn.queries(normed);
        let own = self.self_attn.keys_and_values(normed);
        let x = x + self.self_attn.join(attention(q, own.keys, own.values).output());
        let inner = self.fc1.forward(self.final_layer_norm.forward(x));
        let inner: Tensor<(Batch, S, A::EncoderFfn)> = Tensor::from_raw(self.activation.apply(inner.raw()));
        x + self.fc2.forward(inner)
    }
}

/// A layer of the decoder.
#[neural_module(no_default)]
pub struct DecoderLayer<A: WhisperAxes> {
    /// Attention of the text to itself.
    pub self_attn: Attention<A::Hidden, A::DecoderHeads, A::DecoderHeadDim>,
    /// The norm before it.
    pub self_attn_layer_norm: LayerNorm<A::Hidden>,
    /// Attention to the sound.
    pub encoder_attn: Attention<A::Hidden, A::DecoderHeads, A::DecoderHeadDim>,
    /// The norm before it.
    pub encoder_attn_layer_norm: LayerNorm<A::Hidden>,
    /// `[DecoderFfn, Hidden]`
    pub fc1: Linear<A::Hidden, A::DecoderFfn>,
    /// `[Hidden, DecoderFfn]`
    pub fc2: Linear<A::DecoderFfn, A::Hidden>,
    /// The norm before the feed-forward layer.
    pub final_layer_norm: LayerNorm<A::Hidden>,
    /// What is between `fc1` and `fc2`.
    #[hyper]
    pub activation: Activation,
}

/// What a layer of the decoder asks the sound, `[Batch, Time, DecoderHeads, DecoderHeadDim]`.
pub type Questions<A> = Tensor<(Batch, Time, <A as WhisperAxes>::DecoderHeads, <A as WhisperAxes>::DecoderHeadDim)>;

#[neural_module]
impl<A: WhisperAxes> DecoderLayer<A> {
    /// `[Batch, Time, Hidden]` to the same, and what the layer asked the sound.
    pub fn forward(
        &self,
        x: Stream<A::Hidden>,
        memory: KvCache<Batch, Source, A::DecoderHeads, A::DecoderHeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> (Stream<A::Hidden>, Questions<A>) {
        let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
        let normed = self.self_attn_layer_norm.forward(x);
        let q = self.self_attn.queries(normed);
        let own = self.self_attn.keys_and_values(normed);
        // Each head of keys and values has one head of queries.
        let q = q.reshape::<(Batch, Time, A::DecoderHeads, Const<1>, A::DecoderHeadDim)>();
        let x = x + self.self_attn.join(cx.attend(q, own.keys, own.values, &options).reshape());
        let q = self.encoder_attn.queries(self.encoder_attn_layer_norm.forward(x));
        let seen = visible.limit(attention(q, memory.keys, memory.values)).output();
        let x = x + self.encoder_attn.join(seen);
        let inner = self.fc1.forward(self.final_layer_norm.forward(x));
        let inner: Stream<A::DecoderFfn> = Tensor::from_raw(self.activation.apply(inner.raw()));
        (x + self.fc2.forward(inner), q)
    }
}

/// From a spectrogram to a stream.
#[neural_module(no_default)]
pub struct Encoder<A: WhisperAxes> {
    /// `[Hidden, Bands, 3]`
    pub conv1: SameConv1d<A::Bands, A::Hidden, 3>,
    /// `[Hidden, Hidden, 3]`, at every second frame.
    pub conv2: Conv1d<A::Hidden, A::Hidden, 3, 2, 1>,
    /// `[EncoderPositions, Hidden]`: sinusoids.
    pub embed_positions: Embedding<A::EncoderPositions, A::Hidden>,
    /// The layers, in order.
    pub layers: Vec<EncoderLayer<A>>,
    /// The norm after the last.
    pub layer_norm: LayerNorm<A::Hidden>,
    /// What comes after each convolution.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: WhisperAxes> Encoder<A> {
    /// `[Batch, F, Bands]` to `[Batch, Halved<F>, Hidden]`.
    pub fn forward<F: Axis, E: Float>(
        &self,
        x: Tensor<(Batch, F, A::Bands), E>,
        cx: &Context<'_>,
    ) -> Tensor<(Batch, Halved<F>, A::Hidden)> {
        let x: Tensor<(Batch, A::Bands, F)> = Tensor::from_raw(movement::permute(x.raw(), &[0, 2, 1]));
        let x: Tensor<(Batch, A::Hidden, F)> = Tensor::from_raw(self.activation.apply(self.conv1.forward(x).raw()));
        let x = self.activation.apply(self.conv2.forward(x).raw());
        let x: Tensor<(Batch, Halved<F>, A::Hidden)> = Tensor::from_raw(movement::permute(x, &[0, 2, 1]));
        let table = self.embed_positions.weight.get().raw();
        let places = slice::slice(table, 0, Extent::constant(0), 1, Halved::<F>::dim());
        let mut x = cx.note(x + Tensor::<(Halved<F>, A::Hidden)>::from_raw(places));
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if i + 1 < self.layers.len() {
                x = cx.note(x);
            }
        }
        cx.note(self.layer_norm.forward(x))
    }
}

/// From tokens and a stream to tokens.
#[neural_module(no_default)]
pub struct Decoder<A: WhisperAxes> {
    /// `[Vocab, Hidden]`, which is also the head.
    pub embed_tokens: Embedding<A::Vocab, A::Hidden>,
    /// `[DecoderPositions, Hidden]`
    pub embed_positions: Embedding<A::DecoderPositions, A::Hidden>,
    /// The layers, in order.
    pub layers: Vec<DecoderLayer<A>>,
    /// The norm after the last.
    pub layer_norm: LayerNorm<A::Hidden>,
    /// What embeddings are multiplied by.
    pub scale: f64,
}

/// An encoder and a decoder.
#[neural_module(no_default)]
pub struct Whisper<A: WhisperAxes> {
    /// From sound.
    pub encoder: Encoder<A>,
    /// To text.
    pub decoder: Decoder<A>,
}

/// The whole model, by its names in checkpoints.
#[neural_module(no_default)]
pub struct WhisperModel<A: WhisperAxes> {
    /// Encoder and decoder.
    pub model: Whisper<A>,
}

impl<A: WhisperAxes> WhisperModel<A> {
    /// The decoder's stream after the last norm, and what each layer asked the sound.
    pub fn questions(
        &self,
        ids: Ids,
        memory: &Memory<A::DecoderHeads, A::DecoderHeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> (Stream<A::Hidden>, Vec<Questions<A>>) {
        let decoder = &self.model.decoder;
        let tokens = decoder.embed_tokens.forward(ids);
        let tokens = if decoder.scale == 1.0 { tokens } else { tokens * decoder.scale };
        let mut x = cx.note(tokens + decoder.embed_positions.forward(cx.positions()));
        let mut questions = vec![];
        for (i, (layer, memory)) in decoder.layers.iter().zip(memory).enumerate() {
            let (y, q) = layer.forward(x, *memory, visible, &cx.layer(i));
            questions.push(q);
            x = if i + 1 < decoder.layers.len() { cx.note(y) } else { y };
        }
        (cx.note(decoder.layer_norm.forward(x)), questions)
    }
}

impl<A: WhisperAxes> Seq2Seq for WhisperModel<A> {
    type Hidden = A::Hidden;
    type Vocab = A::Vocab;
    type Heads = A::DecoderHeads;
    type HeadDim = A::DecoderHeadDim;
    /// Silence behind a recording is part of the window.
    const MASKED: bool = false;

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
        self.questions(ids, memory, visible, cx).0
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, A::Hidden)>) -> Tensor<(Batch, T, A::Vocab)> {
        self.model.decoder.embed_tokens.attend(x)
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

/// The sizes that a configuration gives to a Whisper's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: WhisperAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let (encoder, decoder) = (heads(config, "encoder_attention_heads")?, heads(config, "decoder_attention_heads")?);
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Bands>(config.size("num_mel_bins")?)
        .with::<A::EncoderPositions>(config.size("max_source_positions")?)
        .with::<A::DecoderPositions>(config.size("max_target_positions")?)
        .with::<A::Hidden>(config.size("d_model")?)
        .with::<A::EncoderHeads>(encoder.all)
        .with::<A::EncoderHeadDim>(encoder.dim)
        .with::<A::EncoderFfn>(config.size("encoder_ffn_dim")?)
        .with::<A::DecoderHeads>(decoder.all)
        .with::<A::DecoderHeadDim>(decoder.dim)
        .with::<A::DecoderFfn>(config.size("decoder_ffn_dim")?))
}

/// Attention whose keys have no bias.
fn attends<H: Axis, N: Axis, D: Axis>() -> Attention<H, N, D> {
    Attention { k_proj: Linear::default().no_bias(), ..Attention::default() }
}

/// The module that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn whisper<A: WhisperAxes>(config: &Config) -> Result<WhisperModel<A>, ConfigError> {
    let activation = config.activation("activation_function", "gelu")?;
    let depth = |key: &str| match config.size(key)? {
        n if n <= 10_000 => Ok(n),
        _ => Err(config.wrong(key, "at most 10000 layers")),
    };
    if !config.flag("tie_word_embeddings", true)? {
        return Err(config.wrong("tie_word_embeddings", "true: a Whisper's head is its embedding"));
    }
    let encoder = |_| EncoderLayer {
        self_attn: attends(),
        self_attn_layer_norm: LayerNorm::default(),
        fc1: Linear::default(),
        fc2: Linear::default(),
        final_layer_norm: LayerNorm::default(),
        activation,
    };
    let decoder = |_| DecoderLayer {
        self_attn: attends(),
        self_attn_layer_norm: LayerNorm::default(),
        encoder_attn: attends(),
        encoder_attn_layer_norm: LayerNorm::default(),
        fc1: Linear::default(),
        fc2: Linear::default(),
        final_layer_norm: LayerNorm::default(),
        activation,
    };
    let scaled = config.flag("scale_embedding", false)?;
    let encoder = Encoder {
        conv1: SameConv1d::default(),
        conv2: Conv1d::default(),
        embed_positions: Embedding::default(),
        layers: (0..depth("encoder_layers")?).map(encoder).collect(),
        layer_norm: LayerNorm::default(),
        activation: Activation::Gelu,
    };
    let decoder = Decoder {
        embed_tokens: Embedding::default(),
        embed_positions: Embedding::default(),
        layers: (0..depth("decoder_layers")?).map(decoder).collect(),
        layer_norm: LayerNorm::default(),
        scale: if scaled { (config.size("d_model")? as f64).sqrt() } else { 1.0 },
    };
    Ok(WhisperModel { model: Whisper { encoder, decoder } })
}
