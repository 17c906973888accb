//! Any language model by its configuration: one that continues texts, an encoder, or both joined.

use super::bart::{self, AnyBart};
use super::bert::{self, AnyBert, Heads};
use super::config::Config;
use super::distilbert;
use super::encoder::{Encoder, EncoderModel};
use super::family::{self, FAMILIES, OpenError, TextModel};
use super::roberta;
use super::seq2seq::{EncoderDecoder, Seq2SeqModel, SpecialTokens};
use super::t5::{self, AnyT5};
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use mobilis_runtime::suggest::did_you_mean;

/// A language model whose family's type is gone.
pub enum AnyModel {
    /// It continues texts.
    Text(Box<dyn TextModel>),
    /// It gives vectors for texts.
    Encoder(Box<dyn EncoderModel>),
    /// It gives another text for a text.
    Seq2Seq(Box<dyn Seq2SeqModel>),
}

impl AnyModel {
    /// Runs it on another device from now on, for whatever is not compiled yet.
    pub fn set_device(&self, device: Device) {
        match self {
            AnyModel::Text(model) => model.set_device(device),
            AnyModel::Encoder(model) => model.set_device(device),
            AnyModel::Seq2Seq(model) => model.set_device(device),
        }
    }

    /// The sizes of its run-time axes.
    pub fn sizes(&self) -> &Sizes {
        match self {
            AnyModel::Text(model) => model.sizes(),
            AnyModel::Encoder(model) => model.sizes(),
            AnyModel::Seq2Seq(model) => model.sizes(),
        }
    }

    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        match self {
            AnyModel::Text(model) => model.parameter_count(),
            AnyModel::Encoder(model) => model.parameter_count(),
            AnyModel::Seq2Seq(model) => model.parameter_count(),
        }
    }
}

/// A family of encoders.
pub struct EncoderFamily {
    /// Its `model_type`s.
    pub model_types: &'static [&'static str],
    /// Builds the module and loads the tensors.
    pub open: fn(&Config, &dyn Source) -> Result<Box<dyn EncoderModel>, OpenError>,
}

/// All families of encoders.
pub const ENCODERS: &[EncoderFamily] = &[
    EncoderFamily { model_types: &["bert"], open: open_bert },
    EncoderFamily { model_types: &["distilbert"], open: open_distilbert },
    EncoderFamily { model_types: &["roberta", "xlm-roberta", "camembert"], open: open_roberta },
];

/// A family of encoder-decoders.
pub struct Seq2SeqFamily {
    /// Its `model_type`s.
    pub model_types: &'static [&'static str],
    /// Builds the module and loads the tensors.
    pub open: fn(&Config, &dyn Source) -> Result<Box<dyn Seq2SeqModel>, OpenError>,
}

/// All families of encoder-decoders.
pub const SEQ2SEQ: &[Seq2SeqFamily] = &[
    Seq2SeqFamily { model_types: &["t5", "mt5"], open: open_t5 },
    Seq2SeqFamily { model_types: &["bart"], open: open_bart },
];

/// Opens the model that a configuration describes, with the tensors of a source.
///
/// # Errors
/// A family that is not known, settings that make no sense, tensors that do not fit.
pub fn open(config: &Config, tensors: &dyn Source) -> Result<AnyModel, OpenError> {
    let wanted = config.model_type()?;
    if FAMILIES.iter().any(|f| f.model_types.contains(&wanted)) {
        return family::open(config, tensors).map(AnyModel::Text);
    }
    if let Some(family) = ENCODERS.iter().find(|f| f.model_types.contains(&wanted)) {
        return (family.open)(config, tensors).map(AnyModel::Encoder);
    }
    if let Some(family) = SEQ2SEQ.iter().find(|f| f.model_types.contains(&wanted)) {
        return (family.open)(config, tensors).map(AnyModel::Seq2Seq);
    }
    let all = FAMILIES.iter().flat_map(|f| f.model_types).chain(ENCODERS.iter().flat_map(|f| f.model_types));
    let all: Vec<&str> = all.chain(SEQ2SEQ.iter().flat_map(|f| f.model_types)).copied().collect();
    let hint = did_you_mean(wanted, all.iter().copied());
    Err(OpenError::Family { model_type: wanted.into(), known: all.join(", "), hint })
}

/// Which heads a checkpoint has, by what the configuration calls the model and by its tensors.
fn heads(config: &Config, tensors: &dyn Source) -> Result<Heads, OpenError> {
    let names = tensors.names();
    let architecture = config.words("architectures")?.and_then(|a| a.first().copied()).unwrap_or_default();
    Ok(Heads::of(architecture, |part| names.iter().any(|n| n.contains(part))))
}

/// Loads an encoder. Checkpoints of the encoder alone lack `prefix`; old ones call the weights of
/// norms gamma and beta; some hold the numbers 0, 1, 2, ... besides.
fn load<M: Module>(module: M, sizes: Sizes, prefix: &'static str, tensors: &dyn Source) -> Result<Model<M>, OpenError> {
    let names = tensors.names();
    let bare = !names.iter().any(|n| n.starts_with(prefix)) && names.iter().any(|n| n.starts_with("embeddings."));
    let old = names.iter().any(|n| n.ends_with("LayerNorm.gamma"));
    let options = LoadOptions::new().sizes(sizes).rename(move |name| {
        let name = if bare { name.strip_prefix(prefix).unwrap_or(name) } else { name };
        match old {
            true => name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
            false => name.to_string(),
        }
    });
    Ok(options.passing_over("**.position_ids").passing_over("**.token_type_ids").load(module, tensors)?)
}

fn open_bert(config: &Config, tensors: &dyn Source) -> Result<Box<dyn EncoderModel>, OpenError> {
    let module = bert::bert::<AnyBert>(config, heads(config, tensors)?)?;
    let model = load(module, bert::sizes::<AnyBert>(config)?, "bert.", tensors)?;
    Ok(Box::new(Encoder::new(config.clone(), model)))
}

fn open_distilbert(config: &Config, tensors: &dyn Source) -> Result<Box<dyn EncoderModel>, OpenError> {
    let names = tensors.names();
    let architecture = config.words("architectures")?.and_then(|a| a.first().copied()).unwrap_or_default();
    let heads = distilbert::heads(architecture, |part| names.iter().any(|n| n.contains(part)));
    let bare =
        !names.iter().any(|n| n.starts_with("distilbert.")) && names.iter().any(|n| n.starts_with("embeddings."));
    let config = distilbert::settings(config)?;
    let options = LoadOptions::new().sizes(bert::sizes::<AnyBert>(&config)?).rename(move |name| {
        let name = distilbert::name(name);
        if bare { name.strip_prefix("distilbert.").map_or(name.clone(), String::from) } else { name }
    });
    let module = distilbert::distilbert::<AnyBert>(&config, heads)?;
    Ok(Box::new(Encoder::new(config, options.passing_over("**.position_ids").load(module, tensors)?)))
}

fn open_roberta(config: &Config, tensors: &dyn Source) -> Result<Box<dyn EncoderModel>, OpenError> {
    let module = roberta::roberta::<AnyBert>(config, heads(config, tensors)?)?;
    let model = load(module, bert::sizes::<AnyBert>(config)?, "roberta.", tensors)?;
    Ok(Box::new(Encoder::new(config.clone(), model)))
}

fn open_t5(config: &Config, tensors: &dyn Source) -> Result<Box<dyn Seq2SeqModel>, OpenError> {
    let module = t5::t5::<AnyT5>(config, tensors.info("lm_head.weight").is_some())?;
    let special = SpecialTokens::of(config, SpecialTokens::default())?;
    // The original files have a table of distances in attention to the source, which has none.
    let options = LoadOptions::new().sizes(t5::sizes::<AnyT5>(config)?);
    let options = options.passing_over("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight");
    Ok(Box::new(EncoderDecoder::load(config, special, module, &options, tensors)?))
}

fn open_bart(config: &Config, tensors: &dyn Source) -> Result<Box<dyn Seq2SeqModel>, OpenError> {
    let module = bart::bart::<AnyBart>(config, tensors.info("final_logits_bias").is_some())?;
    let names = tensors.names();
    let bare = !names.iter().any(|n| n.starts_with("model.")) && names.iter().any(|n| n.starts_with("encoder."));
    let defaults = SpecialTokens { start: 2, padding: 1, forced_first: None };
    let special = SpecialTokens::of(config, defaults)?;
    let options = LoadOptions::new().sizes(bart::sizes::<AnyBart>(config)?).rename(move |name| {
        let name = if bare { name.strip_prefix("model.").unwrap_or(name) } else { name };
        name.to_string()
    });
    Ok(Box::new(EncoderDecoder::load(config, special, module, &options, tensors)?))
}
