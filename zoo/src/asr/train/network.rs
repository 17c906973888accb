//! What a recipe's `model` section says of the network, and the network itself.
//!
//! The section is one of NeMo's: its class follows from `target`, or else from what is there (`joint`: a transducer,
//! `aux_ctc` beside it: a hybrid, `tokenizer`: pieces of words), its encoder from `encoder`. A run that starts from an
//! archive (`init_from_nemo_model`) takes the sections that the recipe leaves out from there, and the tensors that fit.

use super::TrainingError;
use super::acoustic::{Acoustic, Objective, durations};
use super::learner::{AcousticLearner, Reader};
use super::run::Learner;
use super::tokens::{TokensRecipe, Vocabulary};
use crate::asr::conformer::axes::{AnyConformer, Rate};
use crate::asr::conformer::model::{Conformer, HeadSettings, ModelSettings};
use crate::asr::conformer::network::{AtRate, Network, at_rate};
use crate::asr::conv::{ConvClassifier, ConvCtc};
use crate::asr::decode::transducer::GreedyOptions;
use crate::asr::front::Front;
use crate::audio::Hop;
use crate::import::nemo::Archive;
use crate::llm::config::Config;
use crate::recipe::keys::strict;
use crate::recipe::{Keys, RecipeError};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Raw, TensorInfo};
use mobilis_runtime::prelude::*;
use mobilis_runtime::suggest::did_you_mean;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::rc::Rc;

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Classes,
    Ctc,
    Transducer,
    Hybrid,
}

/// NeMo's classes: without a tokenizer, and with one.
const CLASSES: [(Task, [&str; 2]); 4] = [
    (Task::Classes, ["EncDecClassificationModel"; 2]),
    (Task::Ctc, ["EncDecCTCModel", "EncDecCTCModelBPE"]),
    (Task::Transducer, ["EncDecRNNTModel", "EncDecRNNTBPEModel"]),
    (Task::Hybrid, ["EncDecHybridRNNTCTCModel", "EncDecHybridRNNTCTCBPEModel"]),
];

const MODULES: &str = "nemo.collections.asr.modules";

const CONV: [&str; 11] = [
    "_target_",
    "feat_in",
    "activation",
    "conv_mask",
    "jasper",
    "normalization_mode",
    "residual_mode",
    "norm_groups",
    "frame_splicing",
    "init_mode",
    "quantize",
];

const CONFORMER: [&str; 39] = [
    "_target_",
    "feat_in",
    "feat_out",
    "n_layers",
    "d_model",
    "subsampling",
    "subsampling_factor",
    "subsampling_conv_chunking_factor",
    "subsampling_conv_channels",
    "causal_downsampling",
    "reduction",
    "reduction_position",
    "reduction_factor",
    "ff_expansion_factor",
    "self_attention_model",
    "n_heads",
    "att_context_size",
    "att_context_probs",
    "att_context_style",
    "xscaling",
    "untie_biases",
    "pos_emb_max_len",
    "conv_kernel_size",
    "conv_norm_type",
    "conv_context_size",
    "use_bias",
    "use_pytorch_sdpa",
    "use_pytorch_sdpa_backends",
    "dropout",
    "dropout_pre_encoder",
    "dropout_emb",
    "dropout_att",
    "stochastic_depth_drop_prob",
    "stochastic_depth_mode",
    "stochastic_depth_start_layer",
    "sync_max_audio_length",
    "global_tokens",
    "global_tokens_spacing",
    "global_attn_separate",
];

const HEAD: [&str; 13] = [
    "_target_",
    "feat_in",
    "num_classes",
    "vocabulary",
    "init_mode",
    "add_blank",
    "return_logits",
    "pooling_type",
    "normalization_mode",
    "random_state_sampling",
    "blank_as_pad",
    "prednet",
    "vocab_size",
];
const PREDICTOR: [&str; 9] = [
    "pred_hidden",
    "pred_rnn_layers",
    "t_max",
    "dropout",
    "norm",
    "weights_init_scale",
    "hidden_hidden_bias_scale",
    "forget_gate_bias",
    "rnn_hidden_size",
];
const JOINT: [&str; 11] = [
    "_target_",
    "log_softmax",
    "preserve_memory",
    "fuse_loss_wer",
    "fused_batch_size",
    "experimental_fuse_loss_wer",
    "jointnet",
    "num_classes",
    "num_extra_outputs",
    "vocabulary",
    "masking_prob",
];
const JOINTNET: [&str; 5] = ["joint_hidden", "activation", "dropout", "encoder_hidden", "pred_hidden"];
const AUX: [&str; 5] = ["ctc_loss_weight", "use_cer", "ctc_reduction", "decoder", "decoding"];
const LOSS: [&str; 3] = ["loss_name", "warprnnt_numba_kwargs", "tdt_kwargs"];
const LOSS_NUMBERS: [&str; 5] = ["fastemit_lambda", "clamp", "durations", "sigma", "omega"];

/// What a recipe says of the network: read before the data is.
#[derive(Clone, Debug)]
pub struct NetworkRecipe {
    task: Task,
    /// What it tells apart.
    pub tokens: TokensRecipe,
    /// Hertz.
    pub rate: u32,
    /// The sections that make the network.
    sections: Map<String, Value>,
    seed: u64,
}

impl NetworkRecipe {
    /// Reads what the network needs; `start` is the configuration of the archive that the run starts from.
    ///
    /// # Errors
    /// Keys and classes that are not known, sections that are missing.
    pub fn read(keys: &mut Keys, seed: u64, start: Option<&Value>) -> Result<NetworkRecipe, RecipeError> {
        keys.without_effect(&[
            "log_prediction",
            "skip_nan_grad",
            "repeat",
            "dropout",
            "separable",
            "timesteps",
            "n_filters",
            "kernel_size_factor",
            "model_defaults",
            "log_every_n_steps",
            "is_regression_task",
            "compute_eval_loss",
            "variational_noise",
            "use_cer",
            "interctc",
            "rnnt_decoding",
        ]);
        let archived = |key: &str| start.map(|config| config[key].clone()).filter(|value| !value.is_null());
        let rate = keys.get::<u64>("sample_rate")?.or_else(|| archived("sample_rate")?.as_u64());
        let rate = rate.or_else(|| start?["preprocessor"]["sample_rate"].as_u64()).unwrap_or(16_000);
        let rate = u32::try_from(rate).ok().filter(|r| (1000..=384_000).contains(r));
        let rate = rate.ok_or_else(|| keys.fault("sample_rate", "must be 1000 to 384000 Hz"))?;
        let mut sections = Map::new();
        sections.insert("sample_rate".into(), rate.into());
        // What they may hold is told where they are used: features, masks.
        for key in ["preprocessor", "spec_augment", "crop_or_pad_augment", "decoding"] {
            if let Some(value) = keys.get::<Value>(key)?.or_else(|| archived(key)) {
                sections.insert(key.into(), value);
            }
        }
        for key in ["ctc_reduction", "rnnt_reduction"] {
            if let Some(word) = keys.get::<String>(key)?.or_else(|| archived(key)?.as_str().map(str::to_string)) {
                sections.insert(key.into(), word.into());
            }
        }
        let known: Vec<&str> = CONV.iter().chain(&CONFORMER).copied().collect();
        let parts: [(&str, &[&str]); 5] =
            [("encoder", &known), ("decoder", &HEAD), ("joint", &JOINT), ("aux_ctc", &AUX), ("loss", &LOSS)];
        for (key, known) in parts {
            let own = keys.table(key, known)?;
            for (part, inner) in [("prednet", &PREDICTOR[..]), ("jointnet", &JOINTNET)] {
                if let Some(value) = own.as_ref().and_then(|own| own.get(part)) {
                    strict(&format!("model.{key}.{part}"), value, inner)?;
                }
            }
            for part in &LOSS[1..] {
                if let Some(value) = own.as_ref().and_then(|own| own.get(part)) {
                    strict(&format!("model.loss.{part}"), value, &LOSS_NUMBERS)?;
                }
            }
            if let Some(value) = own.or_else(|| archived(key)) {
                sections.insert(key.into(), value);
            }
        }
        let tokens = TokensRecipe::read(keys, start)?;
        let target = keys.get::<String>("target")?.or_else(|| archived("target")?.as_str().map(str::to_string));
        let task = task(keys, &sections, target)?;
        let encoder =
            sections.get("encoder").ok_or_else(|| keys.fault("encoder", "is missing: a section is expected"))?;
        let conv = is_conv(encoder);
        if conv && !matches!(task, Task::Classes | Task::Ctc) || !conv && task == Task::Classes {
            let fault = "is not trained here for this `target`: classes are told apart by convolutions (`jasper`), \
                         transducers read Conformers";
            return Err(keys.fault("encoder", fault));
        }
        if task == Task::Classes && tokens.are_pieces() {
            return Err(keys.fault("tokenizer", "has no use for classes: `labels` are expected"));
        }
        Ok(NetworkRecipe { task, tokens, rate, sections, seed })
    }

    /// Whether it tells recordings apart rather than letters.
    pub fn classifies(&self) -> bool {
        self.task == Task::Classes
    }

    /// The configuration that an archive has: `section` is the recipe's `model`, with all that NeMo wants.
    pub(super) fn config(&self, section: &Value, tokens: &Vocabulary) -> Result<Value, RecipeError> {
        let mut config = section.as_object().cloned().unwrap_or_default();
        config.extend(self.sections.clone());
        let mut config = Value::Object(config);
        let names = CLASSES
            .iter()
            .find(|(task, _)| *task == self.task)
            .map_or("", |c| c.1[usize::from(self.tokens.are_pieces())]);
        config["target"] = format!("nemo.collections.asr.models.{names}").into();
        // Features as NeMo has computed them since this version.
        config["nemo_version"] = "2.5.0".into();
        let count = tokens.count();
        let fill = |section: &mut Value, entries: Value| {
            if !section.is_object() {
                *section = json!({});
            }
            if let (Value::Object(section), Value::Object(entries)) = (section, entries) {
                section.extend(entries);
            }
        };
        let class = |section: &mut Value, class: &str| {
            if section["_target_"].is_null() {
                fill(section, json!({"_target_": format!("{MODULES}.{class}")}));
            }
        };
        // What is told of numbers of classes has to be right; -1 and 0 stand for "as many as there are".
        for (path, key) in [("decoder", "num_classes"), ("decoder", "vocab_size"), ("joint", "num_classes")] {
            if let Some(told) = config[path][key].as_i64().filter(|n| *n > 0 && *n != count as i64) {
                let fault = format!("is {told}, and there are {count} labels");
                return Err(RecipeError::new(format!("model.{path}.{key}"), fault));
            }
        }
        class(&mut config["preprocessor"], "AudioToMelSpectrogramPreprocessor");
        if config["preprocessor"]["sample_rate"].is_null() {
            config["preprocessor"]["sample_rate"] = self.rate.into();
        }
        let conv = is_conv(&config["encoder"]);
        class(&mut config["encoder"], if conv { "ConvASREncoder" } else { "ConformerEncoder" });
        let hidden = match conv {
            true => config["encoder"]["jasper"].as_array().and_then(|b| b.last()?["filters"].as_u64()).unwrap_or(0),
            false => config["encoder"]["d_model"].as_u64().unwrap_or(0),
        };
        if let Some(told) = config["decoder"]["feat_in"].as_u64().filter(|n| *n != hidden) {
            let fault = format!("is {told}, and the encoder gives {hidden} channels");
            return Err(RecipeError::new("model.decoder.feat_in", fault));
        }
        let words = &tokens.names;
        let ctc = json!({
            "_target_": format!("{MODULES}.ConvASRDecoder"), "feat_in": hidden, "num_classes": count, "vocabulary": words,
        });
        match self.task {
            Task::Classes => {
                class(&mut config["decoder"], "ConvASRDecoderClassification");
                let more =
                    json!({"feat_in": hidden, "num_classes": count, "return_logits": true, "pooling_type": "avg"});
                fill(&mut config["decoder"], more);
            }
            Task::Ctc => fill(&mut config["decoder"], ctc),
            Task::Transducer | Task::Hybrid => {
                let pred = config["decoder"]["prednet"]["pred_hidden"].clone();
                class(&mut config["decoder"], "RNNTDecoder");
                class(&mut config["joint"], "RNNTJoint");
                fill(&mut config["decoder"], json!({"vocab_size": count, "blank_as_pad": true}));
                fill(&mut config["joint"], json!({"num_classes": count, "vocabulary": words}));
                fill(&mut config["joint"]["jointnet"], json!({"encoder_hidden": hidden, "pred_hidden": pred}));
                let durations = config["loss"]["tdt_kwargs"]["durations"].clone();
                let durations = if durations.is_null() { config["decoding"]["durations"].clone() } else { durations };
                if let Some(list) = durations.as_array().filter(|_| config["loss"]["loss_name"] == "tdt") {
                    let more = json!({"num_extra_outputs": list.len()});
                    fill(&mut config["joint"], more);
                    fill(&mut config["decoding"], json!({"model_type": "tdt", "durations": list}));
                }
                if self.task == Task::Hybrid {
                    // An archive's may be anything, and only a table can be written into.
                    fill(&mut config["aux_ctc"], json!({}));
                    fill(&mut config["aux_ctc"]["decoder"], ctc);
                }
            }
        }
        config["labels"] = words.clone().into();
        if !tokens.section().is_null() {
            config["tokenizer"] = tokens.section().clone();
        }
        super::archived::complete(&mut config);
        Ok(config)
    }

    /// Builds the network on a device, with new values, or with those of the archive that it starts from so far as they
    /// fit. `section` is the whole `model` section. What should be known of it is added to `notes`.
    ///
    /// # Errors
    /// Features, blocks or heads that make no sense.
    pub fn build(
        &self,
        section: &Value,
        tokens: Vocabulary,
        start: Option<&Archive>,
        device: Device,
        notes: &mut Vec<String>,
    ) -> Result<Box<dyn Learner>, TrainingError> {
        let config = self.config(section, &tokens)?;
        notes.extend(crate::export::unopened(&config));
        let front = Front::nemo(&config).map_err(TrainingError::model)?;
        if let Some(told) = config["encoder"]["feat_in"].as_u64().filter(|n| *n != front.width() as u64) {
            let fault = format!("is {told}, and the preprocessor gives {} features", front.width());
            return Err(RecipeError::new("model.encoder.feat_in", fault).into());
        }
        let typed = Config::new("`model`", config.clone());
        let making = Making { front, tokens, config, start, device, seed: self.seed, notes };
        if self.task == Task::Classes {
            let (module, sizes) = ConvClassifier::of(&typed, &making.front).map_err(TrainingError::model)?;
            let objective = making.objective(&typed, vec![])?;
            return making.learner(module, sizes, objective, |_| Reader::Class);
        }
        if is_conv(typed.get("encoder").unwrap_or(&Value::Null)) {
            let (module, _, sizes) = ConvCtc::of(&typed).map_err(TrainingError::model)?;
            let objective = making.objective(&typed, vec![])?;
            return making.learner(module, sizes, objective, |_| Reader::Ctc);
        }
        let settings = ModelSettings::of(&typed).map_err(TrainingError::model)?;
        let objective = making.objective(&typed, durations(&settings))?;
        let made = Rated { making, settings: &settings, objective };
        at_rate(&typed, &settings, made).map_err(TrainingError::model)?
    }
}

fn is_conv(encoder: &Value) -> bool {
    !encoder["jasper"].is_null() || encoder["_target_"].as_str().is_some_and(|t| t.ends_with("ConvASREncoder"))
}

/// What the network is for: by its target, or by what it has.
fn task(keys: &Keys, sections: &Map<String, Value>, target: Option<String>) -> Result<Task, RecipeError> {
    let Some(target) = target else {
        let head = sections.get("decoder").and_then(|d| d["_target_"].as_str()).unwrap_or("");
        return Ok(match (sections.contains_key("joint"), sections.contains_key("aux_ctc")) {
            (true, true) => Task::Hybrid,
            (true, false) => Task::Transducer,
            _ if head.ends_with("Classification") => Task::Classes,
            _ => Task::Ctc,
        });
    };
    let name = target.rsplit('.').next().unwrap_or("");
    let found = CLASSES.iter().find(|(_, names)| names.contains(&name)).map(|c| c.0);
    found.ok_or_else(|| {
        let names: Vec<&str> = CLASSES.iter().flat_map(|(_, names)| *names).collect();
        let fault = format!("is \"{target}\"; {} are trained here{}", names.join(", "), did_you_mean(name, &names));
        keys.fault("target", fault)
    })
}

/// What a learner is made of beside its module.
struct Making<'a> {
    front: Front,
    tokens: Vocabulary,
    config: Value,
    start: Option<&'a Archive>,
    device: Device,
    seed: u64,
    notes: &'a mut Vec<String>,
}

impl Making<'_> {
    fn objective(&self, config: &Config, durations: Vec<usize>) -> Result<Objective, TrainingError> {
        Objective::nemo(config, self.tokens.count(), durations).map_err(TrainingError::model)
    }

    fn learner<N: Acoustic>(
        self,
        module: N,
        sizes: Sizes,
        objective: Objective,
        reader: impl FnOnce(&Rc<Model<N>>) -> Reader,
    ) -> Result<Box<dyn Learner>, TrainingError> {
        let model = Model::init_with(module, self.seed, sizes).map_err(TrainingError::model)?;
        if let Some(archive) = self.start {
            let (taken, all) = started(&model, archive)?;
            let from = archive.path.display();
            self.notes.push(match taken == all {
                true => format!("starts from {from}"),
                false => format!("starts from {from}: of {all} tensors {taken} fit, the others are new"),
            });
        }
        // What training draws is the seed's too: what is dropped, hidden, looked ahead.
        model.store().seed(self.seed as u32);
        let model = Rc::new(model.on(self.device));
        let reader = reader(&model);
        Ok(Box::new(AcousticLearner::new(model, self.front, self.tokens, objective, self.config, reader)?))
    }
}

struct Rated<'a, 's> {
    making: Making<'a>,
    settings: &'s ModelSettings,
    objective: Objective,
}

impl AtRate for Rated<'_, '_> {
    type Output = Result<Box<dyn Learner>, TrainingError>;

    fn at<R: Rate>(self) -> Self::Output {
        let Rated { making, settings, objective } = self;
        let sizes = settings.sizes::<AnyConformer>().with::<Hop>(making.front.features().hop());
        let module: Conformer<AnyConformer, R> = settings.module();
        making.learner(module, sizes, objective, |model| match settings.head {
            HeadSettings::Transducer { max_symbols, .. } => {
                let network = Network::sharing(settings.clone(), model.clone());
                Reader::Transducer(Box::new(network), GreedyOptions { max_symbols, confidence: None })
            }
            _ => Reader::Ctc,
        })
    }
}

/// Gives a model what an archive has for it: how many tensors fit, by name and sizes, and how many the model has.
fn started<N: Module>(model: &Model<N>, archive: &Archive) -> Result<(usize, usize), TrainingError> {
    let store = model.store().lock();
    let fits = |name: &&str, sizes: &[usize]| archive.tensors.info(name).is_some_and(|info| info.sizes == sizes);
    let all = model.catalog().vars();
    let names = all.iter().filter(|var| store.sizes(var.id).is_some_and(|sizes| fits(&var.name(), sizes)));
    let names: Vec<&str> = names.map(|var| var.name()).collect();
    drop(store);
    if names.is_empty() {
        let fault = format!("`{}` has no tensor that fits this model", archive.path.display());
        return Err(RecipeError::new("init_from_nemo_model", fault).into());
    }
    let some = Fitting { of: &*archive.tensors, names };
    LoadOptions::new().allow_missing().load_into(model, &some as &dyn Source).map_err(TrainingError::model)?;
    Ok((some.names.len(), all.len()))
}

/// Some of a source's tensors.
#[derive(Debug)]
struct Fitting<'a> {
    of: &'a dyn Source,
    names: Vec<&'a str>,
}

impl Source for Fitting<'_> {
    fn path(&self) -> &Path {
        self.of.path()
    }
    fn names(&self) -> Vec<&str> {
        self.names.clone()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.of.info(name).filter(|_| self.names.contains(&name))
    }
    fn has_values(&self) -> bool {
        self.of.has_values()
    }
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.of.raw(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archive that a run starts from may hold anything; only tables are written into.
    #[test]
    fn parts_of_an_archive_may_be_no_tables() {
        let good = json!({
            "target": "nemo.collections.asr.models.EncDecHybridRNNTCTCModel", "encoder": {"d_model": 8},
            "decoder": {"prednet": {"pred_hidden": 4}}, "joint": {"jointnet": {"joint_hidden": 4}},
            "aux_ctc": {"decoder": {}}, "preprocessor": {}, "loss": {"loss_name": "tdt"}, "decoding": {"durations": [0, 1]},
        });
        let tokens = Vocabulary::labels(vec!["a".into(), "b".into()], false);
        let config = |archive: &Value| {
            let mut keys = Keys::new(json!({"model": {"labels": ["a", "b"]}})).expect("a table");
            let recipe = keys.section("model", |k| NetworkRecipe::read(k, 0, Some(archive)))?;
            recipe.config(&json!({}), &tokens)
        };
        for part in ["", "aux_ctc", "preprocessor", "loss", "decoding"] {
            for other in [json!(3), json!("x"), json!([1]), json!(true), json!({})] {
                let mut archive = good.clone();
                archive[part] = other;
                let found = config(&archive).expect("it is filled");
                assert_eq!(found["aux_ctc"]["decoder"]["num_classes"], 2, "{archive}");
            }
        }
        for part in ["target", "encoder", "decoder", "joint"] {
            for other in [json!(3), json!("x"), json!([1]), json!(true)] {
                let mut archive = good.clone();
                archive[part] = other;
                // Refused or filled, without a panic.
                let _ = config(&archive);
            }
        }
    }
}
