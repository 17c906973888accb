//! RoBERTa, XLM-RoBERTa, CamemBERT: BERT's encoder with other positions and heads.
//!
//! Liu et al. 2019 (<https://arxiv.org/abs/1907.11692>), as Hugging Face's `modeling_roberta.py`.
//! Positions count the tokens that are not padding and begin behind the padding token's id. The
//! head over tokens (`lm_head`) has gelu whatever the layers have, and the classifier of texts two
//! layers over the first token instead of a pooler.

use super::bert::{self, Bert, BertAxes, Heads};
use super::block::Stream;
use super::config::{Config, ConfigError};
use super::encoder::{HeadOutput, TextEncoder, Texts};
use super::{Batch, Context, Time};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::nn::{Activation, LayerNorm, Linear};
use mobilis_runtime::prelude::*;

/// A head over tokens.
#[neural_module(no_default)]
pub struct LmHead<A: BertAxes> {
    /// `[Hidden, Hidden]`
    pub dense: Linear<A::Hidden, A::Hidden>,
    /// The norm behind gelu.
    pub layer_norm: LayerNorm<A::Hidden>,
    /// `[Vocab]`
    pub bias: Param<(A::Vocab,)>,
    /// `[Vocab, Hidden]`: the embedding's table unless the head has its own; its bias is `bias`.
    pub decoder: Linear<A::Hidden, A::Vocab>,
}

#[neural_module]
impl<A: BertAxes> LmHead<A> {
    /// The logits of each token, `[Batch, Time, Vocab]`.
    pub fn forward(&self, x: Stream<A::Hidden>) -> Tensor<(Batch, Time, A::Vocab)> {
        let x: Stream<A::Hidden> = Tensor::from_raw(Activation::Gelu.apply(self.dense.forward(x).raw()));
        self.decoder.forward(self.layer_norm.forward(x))
    }
}

/// Two layers over the first token.
#[neural_module(no_default)]
pub struct TextClassifier<A: BertAxes> {
    /// `[Hidden, Hidden]`
    pub dense: Linear<A::Hidden, A::Hidden>,
    /// `[Labels, Hidden]`
    pub out_proj: Linear<A::Hidden, A::Labels>,
}

#[neural_module]
impl<A: BertAxes> TextClassifier<A> {
    /// The logits of each text, `[Batch, Labels]`.
    pub fn forward(&self, x: Stream<A::Hidden>) -> Tensor<(Batch, A::Labels)> {
        self.out_proj.forward(self.dense.forward(bert::first(x)).tanh())
    }
}

/// A classifier of texts or of tokens: checkpoints call both `classifier`.
pub enum Classifier<A: BertAxes> {
    /// Of texts.
    Texts(TextClassifier<A>),
    /// Of tokens.
    Tokens(Linear<A::Hidden, A::Labels>),
}

impl<A: BertAxes> Module for Classifier<A> {
    fn kind(&self) -> &'static str {
        "Classifier"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        match self {
            Classifier::Texts(head) => head.visit(visitor),
            Classifier::Tokens(head) => head.visit(visitor),
        }
    }
}

/// RoBERTa and the heads of a checkpoint, any of them.
#[neural_module(no_default)]
pub struct Roberta<A: BertAxes> {
    /// The encoder.
    pub roberta: Bert<A>,
    /// Which token stood where another is now.
    pub lm_head: Option<LmHead<A>>,
    /// What a text or a token is.
    pub classifier: Option<Classifier<A>>,
}

impl<A: BertAxes> TextEncoder for Roberta<A> {
    type Hidden = A::Hidden;

    fn positions(&self, sizes: &Sizes) -> usize {
        self.roberta.positions(sizes)
    }

    fn encode(&self, texts: &Texts, cx: &Context) -> Stream<A::Hidden> {
        self.roberta.forward(texts, cx)
    }

    fn heads(&self, x: Stream<A::Hidden>) -> Vec<HeadOutput> {
        let mut out: Vec<HeadOutput> = vec![];
        out.extend(self.roberta.pooled(x).map(|p| HeadOutput::new("pooled", p)));
        out.extend(self.lm_head.as_ref().map(|head| HeadOutput::new("logits", head.forward(x))));
        out.extend(self.classifier.as_ref().map(|head| match head {
            Classifier::Texts(head) => HeadOutput::new("logits", head.forward(x)),
            Classifier::Tokens(head) => HeadOutput::new("logits", head.forward(x)),
        }));
        out
    }
}

/// The module that a configuration describes, with these heads.
///
/// # Errors
/// As for [`bert::encoder`], and a padding token that is missing.
pub fn roberta<A: BertAxes>(config: &Config, heads: Heads) -> Result<Roberta<A>, ConfigError> {
    let padding = config.count("pad_token_id")?.unwrap_or(1);
    let padding = i32::try_from(padding).map_err(|_| config.wrong("pad_token_id", "a token"))?;
    let roberta = bert::encoder::<A>(config, heads.pooler, Some(padding))?;
    let tied = config.flag("tie_word_embeddings", true)?;
    let eps = config.number("layer_norm_eps", 1e-12)?;
    let lm_head = heads.predictions.then(|| {
        let bias = Param::default();
        let decoder = bert::decoder(&roberta, &bias, tied);
        LmHead { dense: Linear::default(), layer_norm: LayerNorm::default().eps(eps), bias, decoder }
    });
    let classifier = heads.classifier.then(|| match heads.per_token {
        true => Classifier::Tokens(Linear::default()),
        false => Classifier::Texts(TextClassifier { dense: Linear::default(), out_proj: Linear::default() }),
    });
    Ok(Roberta { roberta, lm_head, classifier })
}
