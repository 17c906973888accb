//! BERT, and all that call themselves `Bert..`: MiniLM, BGE, E5, GTE.
//!
//! Devlin et al. 2018 (<https://arxiv.org/abs/1810.04805>), as Hugging Face's `modeling_bert.py`:
//! learned positions and token types, layers that norm after each addition, every token sees every
//! other that counts. [`Bert`] is the encoder alone; [`BertWithHeads`] adds what the checkpoint has of the
//! heads of pre-training (`cls.predictions`, `cls.seq_relationship`) and of classification.
//!
//! RoBERTa is the same encoder under another name ([`super::roberta`]).

use super::block::Stream;
use super::config::{Config, ConfigError};
use super::encoder::{HeadOutput, TextEncoder, Texts, Visible};
use super::{Batch, Context, Ids, Time};
use mobilis_runtime::nn::{Activation, Embedding, LayerNorm, Linear};
use mobilis_runtime::ops::attention::attention;
use mobilis_runtime::ops::{leaf, slice};
use mobilis_runtime::prelude::*;

axes! {
    /// What a BERT may choose.
    pub trait BertAxes {
        /// Tokens.
        Vocab,
        /// Positions that there are vectors for.
        Positions,
        /// Types of tokens: first text, second text.
        Types,
        /// The width of the stream.
        Hidden,
        /// Heads of attention.
        Heads,
        /// Features of a head.
        HeadDim,
        /// The width between the feed-forward products.
        Ffn,
        /// What a classifier tells apart.
        Labels,
    }
    /// A BERT of sizes from a `config.json`.
    pub struct AnyBert: BertAxes;
}

/// What enters the first layer: the vectors of token, position and token type, added and normed.
#[neural_module(no_default)]
pub struct Embeddings<A: BertAxes> {
    /// `[Vocab, Hidden]`
    pub word_embeddings: Embedding<A::Vocab, A::Hidden>,
    /// `[Positions, Hidden]`
    pub position_embeddings: Embedding<A::Positions, A::Hidden>,
    /// `[Types, Hidden]`; DistilBERT has none.
    pub token_type_embeddings: Option<Embedding<A::Types, A::Hidden>>,
    /// The norm of the sum.
    #[name("LayerNorm")]
    pub norm: LayerNorm<A::Hidden>,
    /// Where positions count only what is not padding, and begin behind the padding token's id
    /// (RoBERTa): that id.
    #[hyper]
    pub padding: Option<i32>,
}

#[neural_module]
impl<A: BertAxes> Embeddings<A> {
    /// `[Batch, Time]` to `[Batch, Time, Hidden]`. Without types all tokens have type 0.
    pub fn forward(&self, ids: Ids, types: Option<Ids>) -> Stream<A::Hidden> {
        let mut x = self.word_embeddings.forward(ids);
        if let Some(table) = &self.token_type_embeddings {
            let zeros = || Tensor::from_raw(leaf::fill(0.0, Ids::type_of()));
            x = x + table.forward(types.unwrap_or_else(zeros));
        }
        x = match self.padding {
            None => {
                let table: Tensor<(A::Positions, A::Hidden)> = self.position_embeddings.weight.get();
                let first = slice::slice(table.raw(), 0, mobilis_runtime::Extent::constant(0), 1, Time::dim());
                x + Tensor::<(Time, A::Hidden)>::from_raw(first)
            }
            Some(padding) => x + self.position_embeddings.forward(positions_behind(ids, padding)),
        };
        self.norm.forward(x)
    }
}

/// `padding + 1, padding + 2, ..` for the tokens that are not padding; `padding` for those that are.
fn positions_behind(ids: Ids, padding: i32) -> Ids {
    let real = ids.ne(padding).to_index();
    real.cumsum(Time) * real + padding
}

/// One layer: attention and a feed-forward layer, each added to the stream and normed.
#[neural_module(no_default)]
pub struct Layer<A: BertAxes> {
    /// `[Heads * HeadDim, Hidden]`
    #[name("attention.self.query")]
    pub query: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Heads * HeadDim, Hidden]`
    #[name("attention.self.key")]
    pub key: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Heads * HeadDim, Hidden]`
    #[name("attention.self.value")]
    pub value: Linear<A::Hidden, Prod<A::Heads, A::HeadDim>>,
    /// `[Hidden, Heads * HeadDim]`
    #[name("attention.output.dense")]
    pub output: Linear<Prod<A::Heads, A::HeadDim>, A::Hidden>,
    /// The norm after attention.
    #[name("attention.output.LayerNorm")]
    pub attention_norm: LayerNorm<A::Hidden>,
    /// `[Ffn, Hidden]`
    #[name("intermediate.dense")]
    pub up: Linear<A::Hidden, A::Ffn>,
    /// `[Hidden, Ffn]`
    #[name("output.dense")]
    pub down: Linear<A::Ffn, A::Hidden>,
    /// The norm after the feed-forward layer.
    #[name("output.LayerNorm")]
    pub norm: LayerNorm<A::Hidden>,
    /// What is between the two.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: BertAxes> Layer<A> {
    /// `[Batch, Time, Hidden]` to the same; tokens see those that are visible.
    pub fn forward(&self, x: Stream<A::Hidden>, visible: Visible<Time>) -> Stream<A::Hidden> {
        type Heads<A> = (Batch, Time, <A as BertAxes>::Heads, <A as BertAxes>::HeadDim);
        let q: Tensor<Heads<A>> = self.query.forward(x).reshape();
        let k: Tensor<Heads<A>> = self.key.forward(x).reshape();
        let v: Tensor<Heads<A>> = self.value.forward(x).reshape();
        let seen = visible.limit(attention(q, k, v)).output();
        let joined = seen.reshape::<(Batch, Time, Prod<A::Heads, A::HeadDim>)>();
        let x = self.attention_norm.forward(x + self.output.forward(joined));
        let inner: Tensor<(Batch, Time, A::Ffn)> = Tensor::from_raw(self.activation.apply(self.up.forward(x).raw()));
        self.norm.forward(x + self.down.forward(inner))
    }
}

/// The encoder: embeddings, layers, and a pooler where the checkpoint has one.
#[neural_module(no_default)]
pub struct Bert<A: BertAxes> {
    /// What enters the first layer.
    pub embeddings: Embeddings<A>,
    /// The layers, in order.
    #[name("encoder.layer")]
    pub layers: Vec<Layer<A>>,
    /// `[Hidden, Hidden]`: of the first token, for what is said of the whole text.
    #[name("pooler.dense")]
    pub pooler: Option<Linear<A::Hidden, A::Hidden>>,
    /// What the pooler's product goes through: a hyperbolic tangent (DistilBERT: relu).
    #[hyper]
    pub pooler_activation: Activation,
}

#[neural_module]
impl<A: BertAxes> Bert<A> {
    /// `[Batch, Time]` to the stream after the last layer, `[Batch, Time, Hidden]`.
    pub fn forward(&self, texts: &Texts, cx: &Context) -> Stream<A::Hidden> {
        let mut x = cx.note(self.embeddings.forward(texts.ids, texts.types));
        for layer in &self.layers {
            x = cx.note(layer.forward(x, texts.visible));
        }
        x
    }
}

/// The stream at the first token of each text.
pub fn first<H: Axis>(x: Stream<H>) -> Tensor<(Batch, H)> {
    x.slice(Time, Const::<1>, 0).reshape()
}

impl<A: BertAxes> Bert<A> {
    /// The pooler's vector of each text, `[Batch, Hidden]`; nothing without a pooler.
    pub fn pooled(&self, x: Stream<A::Hidden>) -> Option<Tensor<(Batch, A::Hidden)>> {
        let dense = self.pooler.as_ref()?;
        Some(Tensor::from_raw(self.pooler_activation.apply(dense.forward(first(x)).raw())))
    }

    /// How many tokens a text may have, by the sizes of the model's axes.
    pub fn positions(&self, sizes: &Sizes) -> usize {
        let rows = A::Positions::extent().eval(sizes).unwrap_or(0);
        rows.saturating_sub(self.embeddings.padding.map_or(0, |id| id as usize + 1))
    }
}

/// A head over tokens: a layer with a norm, and the embedding's table.
#[neural_module(no_default)]
pub struct Predictions<A: BertAxes> {
    /// `[Hidden, Hidden]`
    #[name("transform.dense")]
    pub dense: Linear<A::Hidden, A::Hidden>,
    /// The norm behind it.
    #[name("transform.LayerNorm")]
    pub norm: LayerNorm<A::Hidden>,
    /// `[Vocab]`
    pub bias: Param<(A::Vocab,)>,
    /// `[Vocab, Hidden]`: the embedding's table unless the head has its own; its bias is `bias`.
    pub decoder: Linear<A::Hidden, A::Vocab>,
    /// What the layer goes through.
    #[hyper]
    pub activation: Activation,
}

#[neural_module]
impl<A: BertAxes> Predictions<A> {
    /// The logits of each token, `[Batch, Time, Vocab]`.
    pub fn forward(&self, x: Stream<A::Hidden>) -> Tensor<(Batch, Time, A::Vocab)> {
        let x: Stream<A::Hidden> = Tensor::from_raw(self.activation.apply(self.dense.forward(x).raw()));
        self.decoder.forward(self.norm.forward(x))
    }
}

/// BERT and the heads of a checkpoint, any of them.
#[neural_module(no_default)]
pub struct BertWithHeads<A: BertAxes> {
    /// The encoder.
    pub bert: Bert<A>,
    /// Which token stood where another is now.
    #[name("cls.predictions")]
    pub predictions: Option<Predictions<A>>,
    /// Whether the second text follows the first.
    #[name("cls.seq_relationship")]
    pub next: Option<Linear<A::Hidden, Const<2>>>,
    /// `[Labels, Hidden]`: of the pooled vector, or of each token.
    pub classifier: Option<Linear<A::Hidden, A::Labels>>,
    /// Whether the classifier is for each token.
    #[hyper]
    pub per_token: bool,
}

impl<A: BertAxes> TextEncoder for BertWithHeads<A> {
    type Hidden = A::Hidden;

    fn positions(&self, sizes: &Sizes) -> usize {
        self.bert.positions(sizes)
    }

    fn encode(&self, texts: &Texts, cx: &Context) -> Stream<A::Hidden> {
        self.bert.forward(texts, cx)
    }

    fn heads(&self, x: Stream<A::Hidden>) -> Vec<HeadOutput> {
        let pooled = self.bert.pooled(x);
        let mut out: Vec<HeadOutput> = vec![];
        out.extend(pooled.map(|p| HeadOutput::new("pooled", p)));
        out.extend(self.predictions.as_ref().map(|head| HeadOutput::new("prediction_logits", head.forward(x))));
        if let (Some(head), Some(pooled)) = (&self.next, pooled) {
            out.push(HeadOutput::new("seq_relationship_logits", head.forward(pooled)));
        }
        match (&self.classifier, pooled) {
            (Some(head), _) if self.per_token => out.push(HeadOutput::new("logits", head.forward(x))),
            (Some(head), Some(pooled)) => out.push(HeadOutput::new("logits", head.forward(pooled))),
            _ => {}
        }
        out
    }
}

/// Which heads a model has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The pooler.
    pub pooler: bool,
    /// `cls.predictions` or `lm_head`.
    pub predictions: bool,
    /// `cls.seq_relationship`.
    pub next: bool,
    /// `classifier`.
    pub classifier: bool,
    /// The classifier is for each token.
    pub per_token: bool,
}

impl Heads {
    /// The heads that an architecture needs (`BertForPreTraining`) and those that a checkpoint has
    /// besides, told by whether it has tensors of a name.
    pub fn of(architecture: &str, has: impl Fn(&str) -> bool) -> Heads {
        let is = |end: &str| architecture.ends_with(end);
        let (texts, tokens) = (is("ForSequenceClassification"), is("ForTokenClassification"));
        Heads {
            pooler: has("pooler.dense.weight"),
            predictions: is("ForPreTraining") || is("ForMaskedLM") || has("predictions") || has("lm_head"),
            next: is("ForPreTraining") || is("ForNextSentencePrediction") || has("seq_relationship"),
            classifier: texts || tokens || has("classifier"),
            per_token: tokens,
        }
    }
}

/// The sizes that a configuration gives to a BERT's axes.
///
/// # Errors
/// Sizes that are missing or make no sense.
pub fn sizes<A: BertAxes>(config: &Config) -> Result<Sizes, ConfigError> {
    let heads = config.heads()?;
    Ok(Sizes::new()
        .with::<A::Vocab>(config.size("vocab_size")?)
        .with::<A::Positions>(config.size("max_position_embeddings")?)
        .with::<A::Types>(config.count("type_vocab_size")?.unwrap_or(2).max(1))
        .with::<A::Hidden>(config.size("hidden_size")?)
        .with::<A::Heads>(heads.all)
        .with::<A::HeadDim>(heads.dim)
        .with::<A::Ffn>(config.size("intermediate_size")?)
        .with::<A::Labels>(labels(config)?))
}

/// How many labels there are: `num_labels`, or as many as `id2label` names; 2 where neither says.
///
/// # Errors
/// Another kind of value.
pub fn labels(config: &Config) -> Result<usize, ConfigError> {
    match config.get("id2label") {
        None if config.get("num_labels").is_some() => config.size("num_labels"),
        None => Ok(2),
        Some(names) => match names.as_object() {
            Some(names) if !names.is_empty() => Ok(names.len()),
            _ => Err(config.wrong("id2label", "an object with a name for each label")),
        },
    }
}

/// The encoder that a configuration describes.
///
/// # Errors
/// Settings that are missing or make no sense, and what no encoder here has: cross-attention,
/// relative positions.
pub fn encoder<A: BertAxes>(config: &Config, pooler: bool, padding: Option<i32>) -> Result<Bert<A>, ConfigError> {
    for key in ["is_decoder", "add_cross_attention"] {
        if config.flag(key, false)? {
            return Err(config.wrong(key, "false: this is an encoder"));
        }
    }
    if config.word("position_embedding_type")?.unwrap_or("absolute") != "absolute" {
        return Err(config.wrong("position_embedding_type", "absolute, the only kind that is known here"));
    }
    let eps = config.number("layer_norm_eps", 1e-12)?;
    let activation = config.activation("hidden_act", "gelu")?;
    let norm = || LayerNorm::default().eps(eps);
    let layer = || Layer {
        query: Linear::default(),
        key: Linear::default(),
        value: Linear::default(),
        output: Linear::default(),
        attention_norm: norm(),
        up: Linear::default(),
        down: Linear::default(),
        norm: norm(),
        activation,
    };
    Ok(Bert {
        embeddings: Embeddings {
            word_embeddings: Embedding::default(),
            position_embeddings: Embedding::default(),
            token_type_embeddings: Some(Embedding::default()),
            norm: norm(),
            padding,
        },
        layers: (0..config.layers()?).map(|_| layer()).collect(),
        pooler: pooler.then(Linear::default),
        pooler_activation: Activation::Tanh,
    })
}

/// A head's table over tokens: the embedding's where it is tied. The bias is the one given.
pub(super) fn decoder<A: BertAxes>(
    bert: &Bert<A>,
    bias: &Param<(A::Vocab,)>,
    tied: bool,
) -> Linear<A::Hidden, A::Vocab> {
    let weight = if tied { bert.embeddings.word_embeddings.weight.tie() } else { Param::default() };
    Linear { weight, bias: Some(bias.tie()) }
}

/// The module that a configuration describes, with these heads.
///
/// # Errors
/// As for [`encoder`].
pub fn bert<A: BertAxes>(config: &Config, heads: Heads) -> Result<BertWithHeads<A>, ConfigError> {
    let needs_pooler = heads.next || heads.classifier && !heads.per_token;
    let bert = encoder::<A>(config, heads.pooler || needs_pooler, None)?;
    let tied = config.flag("tie_word_embeddings", true)?;
    let (activation, eps) = (config.activation("hidden_act", "gelu")?, config.number("layer_norm_eps", 1e-12)?);
    let predictions = heads.predictions.then(|| {
        let bias = Param::default();
        let decoder = decoder(&bert, &bias, tied);
        Predictions { dense: Linear::default(), norm: LayerNorm::default().eps(eps), bias, decoder, activation }
    });
    Ok(BertWithHeads {
        bert,
        predictions,
        next: heads.next.then(Linear::default),
        classifier: heads.classifier.then(Linear::default),
        per_token: heads.per_token,
    })
}
