//! Any language model by its configuration: one that continues texts, or an encoder.

use super::bert::{self, AnyBert, Heads};
use super::config::Config;
use super::encoder::{Encoder, EncoderModel};
use super::family::{self, FAMILIES, OpenError, TextModel};
use super::roberta;
use mobilis_runtime::checkpoint::Source;
use mobilis_runtime::prelude::*;
use mobilis_runtime::suggest::did_you_mean;

/// A language model whose family's type is gone.
pub enum AnyModel {
    /// It continues texts.
    Text(Box<dyn TextModel>),
    /// It gives vectors for texts.
    Encoder(Box<dyn EncoderModel>),
}

impl AnyModel {
    /// How many values the parameters hold.
    pub fn parameter_count(&self) -> usize {
        match self {
            AnyModel::Text(model) => model.parameter_count(),
            AnyModel::Encoder(model) => model.parameter_count(),
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
    EncoderFamily { model_types: &["roberta", "xlm-roberta", "camembert"], open: open_roberta },
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
    let text = FAMILIES.iter().flat_map(|f| f.model_types);
    let all: Vec<&str> = text.chain(ENCODERS.iter().flat_map(|f| f.model_types)).copied().collect();
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

fn open_roberta(config: &Config, tensors: &dyn Source) -> Result<Box<dyn EncoderModel>, OpenError> {
    let module = roberta::roberta::<AnyBert>(config, heads(config, tensors)?)?;
    let model = load(module, bert::sizes::<AnyBert>(config)?, "roberta.", tensors)?;
    Ok(Box::new(Encoder::new(config.clone(), model)))
}
