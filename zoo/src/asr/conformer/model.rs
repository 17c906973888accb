//! An encoder with its heads: what NeMo calls `EncDecCTCModel`, `EncDecRNNTModel` and
//! `EncDecHybridRNNTCTCModel`, and Hugging Face `ParakeetForCTC`, `ParakeetForRNNT`, `ParakeetForTDT`.

use super::axes::{ConformerAxes, Rate};
use super::ctc::CtcHead;
use super::encoder::ConformerEncoder;
use super::settings::Settings;
use super::transducer::{RnntDecoder, RnntJoint};
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::module::Visitor;
use mobilis_runtime::nn::Activation;
use mobilis_runtime::prelude::*;
use serde_json::Value;

/// What reads the encoder.
pub enum Head<A: ConformerAxes> {
    /// CTC.
    Ctc(CtcHead<A>),
    /// Nothing: another model reads the stream.
    Bare,
    /// A transducer, and a CTC head beside it where the model is a hybrid.
    Transducer(RnntDecoder<A>, RnntJoint<A>, Option<CtcHead<A>>),
}

/// An encoder with its heads.
pub struct Conformer<A: ConformerAxes, R: Rate> {
    /// The encoder.
    pub encoder: ConformerEncoder<A, R>,
    /// What reads it.
    pub head: Head<A>,
}

impl<A: ConformerAxes, R: Rate> Module for Conformer<A, R> {
    fn kind(&self) -> &'static str {
        "Conformer"
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        visitor.module("encoder", &self.encoder);
        match &self.head {
            Head::Bare => {}
            Head::Ctc(head) => visitor.module("decoder", head),
            Head::Transducer(decoder, joint, ctc) => {
                visitor.module("decoder", decoder);
                visitor.module("joint", joint);
                if let Some(head) = ctc {
                    visitor.module("ctc_decoder", head);
                }
            }
        }
    }
}

/// Which heads a model has.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadSettings {
    /// CTC.
    Ctc,
    /// Nothing.
    Bare,
    /// A transducer.
    Transducer {
        /// The width of the predictor.
        pred: usize,
        /// Its layers.
        layers: usize,
        /// What its result is dropped with while training.
        pred_dropout: f64,
        /// Whether zeros stand for "nothing said yet".
        zero_start: bool,
        /// The width of the joint.
        joint: usize,
        /// Its activation.
        activation: Activation,
        /// What is dropped in it while training.
        joint_dropout: f64,
        /// Frames that a step may take; none for RNN-T.
        durations: Vec<usize>,
        /// Labels that a frame may give.
        max_symbols: usize,
        /// Whether there is a CTC head too.
        hybrid: bool,
    },
}

/// How a batch's losses become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The mean of the samples (`mean_batch`).
    MeanBatch,
    /// The mean of each sample's by the number of its labels (`mean`).
    Mean,
    /// All by the number of all labels (`mean_volume`).
    MeanVolume,
    /// The sum.
    Sum,
}

/// All that a configuration says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// The encoder.
    pub encoder: Settings,
    /// Tokens and the blank.
    pub classes: usize,
    /// The class that is no token.
    pub blank: usize,
    /// The heads.
    pub head: HeadSettings,
    /// How losses become one.
    pub reduction: Reduction,
    /// Whether tensors bear Hugging Face's names.
    pub hugging_face: bool,
}

/// The most classes that are believed.
const MOST_CLASSES: usize = 1 << 24;

fn reduction(config: &Config, key: &str, default: Reduction) -> Result<Reduction, ConfigError> {
    Ok(match config.word(key)? {
        None => default,
        Some("mean_batch") => Reduction::MeanBatch,
        Some("mean") => Reduction::Mean,
        Some("mean_volume") => Reduction::MeanVolume,
        Some("sum") => Reduction::Sum,
        Some(_) => return Err(config.wrong(key, "mean_batch, mean, mean_volume or sum")),
    })
}

fn durations(config: &Config, key: &str) -> Result<Vec<usize>, ConfigError> {
    let wrong = || config.wrong(key, "a list of at most 64 whole numbers of at most 1000");
    let Some(value) = config.get(key) else { return Ok(vec![]) };
    let list = value.as_array().filter(|l| l.len() <= 64).ok_or_else(wrong)?;
    let one = |v: &Value| v.as_u64().filter(|n| *n <= 1000).map(|n| n as usize).ok_or_else(wrong);
    list.iter().map(one).collect()
}

fn inner(config: &Config, key: &str) -> Result<Config, ConfigError> {
    config.inner(key).ok_or_else(|| config.missing(key))
}

/// The activation of a joint.
fn activation(config: &Config, key: &str) -> Result<Activation, ConfigError> {
    match config.word(key)?.unwrap_or("relu") {
        "relu" => Ok(Activation::Relu),
        "tanh" => Ok(Activation::Tanh),
        "sigmoid" => Ok(Activation::Sigmoid),
        _ => Err(config.wrong(key, "relu, tanh or sigmoid")),
    }
}

impl ModelSettings {
    /// Whether a configuration is one of these models, by NeMo's `target` or Hugging Face's `model_type`.
    pub fn is_one(config: &Value) -> bool {
        let encoder = config.get("encoder").and_then(|e| e.get("_target_")).and_then(Value::as_str);
        encoder.is_some_and(|t| t.ends_with(".ConformerEncoder"))
            && config
                .get("target")
                .and_then(Value::as_str)
                .is_some_and(|t| t.contains(".asr.models.") && !t.contains("aed_"))
            || config.get("model_type").and_then(Value::as_str).is_some_and(|t| t.starts_with("parakeet_"))
    }

    /// What a configuration of NeMo (`model_config.yaml`) or of Hugging Face says.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn of(config: &Config) -> Result<ModelSettings, ConfigError> {
        let settings = match config.get("model_type") {
            Some(_) => ModelSettings::parakeet(config)?,
            None => ModelSettings::nemo(config)?,
        };
        if settings.classes > MOST_CLASSES || settings.blank >= settings.classes {
            return Err(config.wrong("the vocabulary", format!("at most {MOST_CLASSES} classes, the blank among them")));
        }
        Ok(settings)
    }

    /// The encoder alone of a configuration of NeMo's, for another model to read.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn encoder_alone(config: &Config) -> Result<ModelSettings, ConfigError> {
        let encoder = Settings::nemo(&inner(config, "encoder")?)?;
        let (head, reduction) = (HeadSettings::Bare, Reduction::MeanBatch);
        Ok(ModelSettings { encoder, classes: 1, blank: 0, head, reduction, hugging_face: false })
    }

    fn nemo(config: &Config) -> Result<ModelSettings, ConfigError> {
        let encoder = Settings::nemo(&inner(config, "encoder")?)?;
        let decoder = inner(config, "decoder")?;
        let Some(joint) = config.inner("joint") else {
            let tokens = decoder.size("num_classes").or_else(|_| vocabulary(&decoder))?;
            let reduction = reduction(config, "ctc_reduction", Reduction::MeanBatch)?;
            return Ok(ModelSettings {
                encoder,
                classes: tokens.saturating_add(1),
                blank: tokens,
                head: HeadSettings::Ctc,
                reduction,
                hugging_face: false,
            });
        };
        let tokens =
            joint.size("num_classes").or_else(|_| decoder.size("vocab_size")).or_else(|_| vocabulary(&joint))?;
        let (net, predictor) = (inner(&joint, "jointnet")?, inner(&decoder, "prednet")?);
        if !decoder.flag("blank_as_pad", true)? {
            return Err(decoder.wrong("blank_as_pad", "true"));
        }
        let decoding = config.inner("decoding");
        let of_decoding = decoding.as_ref().map(|d| durations(d, "durations")).transpose()?.unwrap_or_default();
        let loss = config.inner("loss").and_then(|l| l.inner("tdt_kwargs"));
        let of_loss = loss.as_ref().map(|l| durations(l, "durations")).transpose()?.unwrap_or_default();
        let extra = joint.count("num_extra_outputs")?.unwrap_or(0);
        let durations = if of_decoding.is_empty() { of_loss } else { of_decoding };
        let durations = if extra == 0 { vec![] } else { durations };
        if durations.len() != extra {
            return Err(joint.wrong("num_extra_outputs", format!("as many as durations, {}", durations.len())));
        }
        let greedy = decoding.as_ref().and_then(|d| d.inner("greedy"));
        let most = |key| greedy.as_ref().and_then(|g| g.count(key).ok().flatten());
        Ok(ModelSettings {
            encoder,
            classes: tokens.saturating_add(1),
            blank: tokens,
            head: HeadSettings::Transducer {
                pred: predictor.size("pred_hidden")?,
                layers: predictor.count("pred_rnn_layers")?.unwrap_or(1).min(64),
                pred_dropout: predictor.number("dropout", 0.0)?,
                zero_start: true,
                joint: net.size("joint_hidden")?,
                activation: activation(&net, "activation")?,
                joint_dropout: net.number("dropout", 0.0)?,
                durations,
                max_symbols: most("max_symbols").or(most("max_symbols_per_step")).unwrap_or(10).max(1),
                hybrid: config.inner("aux_ctc").is_some(),
            },
            reduction: reduction(config, "rnnt_reduction", Reduction::MeanBatch)?,
            hugging_face: false,
        })
    }

    fn parakeet(config: &Config) -> Result<ModelSettings, ConfigError> {
        let encoder = Settings::parakeet(&inner(config, "encoder_config")?)?;
        let classes = config.size("vocab_size")?;
        let kind = config.model_type()?;
        if kind == "parakeet_ctc" {
            let blank = config.size("pad_token_id")?;
            let reduction = reduction(config, "ctc_loss_reduction", Reduction::Mean)?;
            let head = HeadSettings::Ctc;
            return Ok(ModelSettings { encoder, classes, blank, head, reduction, hugging_face: true });
        }
        let reduction = match kind {
            "parakeet_rnnt" => Reduction::MeanVolume,
            "parakeet_tdt" => Reduction::Mean,
            _ => return Err(config.wrong("model_type", "parakeet_ctc, parakeet_rnnt or parakeet_tdt")),
        };
        let width = config.size("decoder_hidden_size")?;
        Ok(ModelSettings {
            encoder,
            classes,
            blank: config.size("blank_token_id")?,
            head: HeadSettings::Transducer {
                pred: width,
                layers: config.count("num_decoder_layers")?.unwrap_or(1).min(64),
                pred_dropout: 0.0,
                zero_start: false,
                joint: width,
                activation: activation(config, "hidden_act")?,
                joint_dropout: 0.0,
                durations: durations(config, "durations")?,
                max_symbols: config.count("max_symbols_per_step")?.unwrap_or(10).max(1),
                hybrid: false,
            },
            reduction,
            hugging_face: true,
        })
    }

    /// The sizes of the model's axes.
    pub fn sizes<A: ConformerAxes>(&self) -> Sizes {
        let sizes = self.encoder.sizes::<A>().with::<A::Classes>(self.classes);
        match &self.head {
            HeadSettings::Ctc | HeadSettings::Bare => sizes,
            HeadSettings::Transducer { pred, joint, durations, .. } => {
                sizes.with::<A::Pred>(*pred).with::<A::Joint>(*joint).with::<A::Outputs>(self.classes + durations.len())
            }
        }
    }

    /// The module; the encoder's factor and causality are the rate's.
    pub fn module<A: ConformerAxes, R: Rate>(&self) -> Conformer<A, R> {
        let head = match &self.head {
            HeadSettings::Ctc => Head::Ctc(CtcHead::new()),
            HeadSettings::Bare => Head::Bare,
            HeadSettings::Transducer {
                layers, pred_dropout, zero_start, activation, joint_dropout, hybrid, ..
            } => Head::Transducer(
                RnntDecoder::new(*layers, *pred_dropout, *zero_start),
                RnntJoint::new(*activation, *joint_dropout),
                hybrid.then(CtcHead::new),
            ),
        };
        Conformer { encoder: ConformerEncoder::new(&self.encoder), head }
    }
}

/// How many tokens a list of them has.
fn vocabulary(config: &Config) -> Result<usize, ConfigError> {
    let list = config.words("vocabulary")?.ok_or_else(|| config.missing("num_classes"))?;
    Ok(list.len())
}

/// Hugging Face's name of a parameter of Parakeet.
pub fn parakeet_name(name: &str) -> String {
    // Whole prefixes, then the parts within a layer.
    const PREFIXES: [(&str, &str); 9] = [
        ("encoder.pre_encode.conv.", "encoder.subsampling.layers."),
        ("encoder.pre_encode.out.", "encoder.subsampling.linear."),
        ("decoder.decoder_layers.0.", "ctc_head."),
        ("decoder.prediction.embed.", "decoder.embedding."),
        ("decoder.prediction.dec_rnn.lstm.", "decoder.lstm."),
        ("joint.pred.", "decoder.decoder_projector."),
        ("joint.enc.", "encoder_projector."),
        ("joint.joint_net.1.", "joint.head."),
        ("joint.joint_net.2.", "joint.head."),
    ];
    const PARTS: [(&str, &str); 8] = [
        (".self_attn.linear_q.", ".self_attn.q_proj."),
        (".self_attn.linear_k.", ".self_attn.k_proj."),
        (".self_attn.linear_v.", ".self_attn.v_proj."),
        (".self_attn.linear_out.", ".self_attn.o_proj."),
        (".self_attn.linear_pos.", ".self_attn.relative_k_proj."),
        (".self_attn.pos_bias_u", ".self_attn.bias_u"),
        (".self_attn.pos_bias_v", ".self_attn.bias_v"),
        (".conv.batch_norm.", ".conv.norm."),
    ];
    if let Some((own, other)) = PREFIXES.iter().find(|(own, _)| name.starts_with(own)) {
        return format!("{other}{}", &name[own.len()..]);
    }
    PARTS.iter().fold(name.to_string(), |name, (own, other)| name.replace(own, other))
}
