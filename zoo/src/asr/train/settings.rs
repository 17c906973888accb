//! What a recipe says beside the model: how long, how often, on which device, where to.

use super::run::Scores;
use crate::recipe::{Keys, RecipeError};
use mobilis_runtime::devices::DeviceError;
use mobilis_runtime::precision::{Compute, Precision, Recipe};
use mobilis_runtime::prelude::Device;
use mobilis_runtime::suggest::did_you_mean;
use mobilis_runtime::train::Clip;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How long to train, and what happens on the way: the section `trainer`.
#[derive(Clone, Debug, PartialEq)]
pub struct Trainer {
    /// The number of epochs; the other bounds hold too.
    pub max_epochs: Option<u64>,
    /// The number of updates.
    pub max_steps: Option<u64>,
    /// When this much time has gone by, the run stops and can be gone on with.
    pub max_time: Option<Duration>,
    /// Batches of an update.
    pub accumulate: u32,
    /// How gradients are limited.
    pub clip: Clip,
    /// When to validate.
    pub validate: Interval,
    /// A note of the loss goes to the log every so many steps.
    pub log_every: u64,
    /// A checkpoint is written every so many steps, and at the end.
    pub save_every: u64,
    /// How many batches in a row may have a loss that is not finite.
    pub skip_non_finite: u32,
    /// How products are computed.
    pub precision: Precision,
    /// Where.
    pub place: Accelerator,
}

/// Where to train: `accelerator` and `devices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// On the first GPU where there is one, else on the CPU.
    Any,
    /// There.
    One(Device),
}

impl Accelerator {
    /// Lightning's words (`cpu`, `gpu`, `cuda`, `auto`) with its `devices` (a count, -1, or a list of numbers), or a
    /// device as it is called here (`cuda:1`, `emulated`). One device trains.
    fn read(keys: &mut Keys) -> Result<Accelerator, RecipeError> {
        let word = keys.or("accelerator", "cpu".to_string())?;
        let gpu = match word.as_str() {
            "gpu" | "cuda" => true,
            "auto" => false,
            name => {
                keys.without_effect(&["devices"]);
                return name.parse().map(Accelerator::One).map_err(|_: DeviceError| {
                    let fault = "cpu, gpu, auto, or a device is expected: cuda:1, emulated, reference";
                    keys.fault("accelerator", format!("is \"{name}\"; {fault}"))
                });
            }
        };
        let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        match keys.get::<Value>("devices")? {
            None => {}
            Some(Value::Array(list)) if list.len() == 1 && number(&list[0]).is_some() => {
                return Ok(Accelerator::One(Device::Cuda(number(&list[0]).unwrap_or(0))));
            }
            Some(value) if value == "auto" || [Some(1), Some(-1)].contains(&value.as_i64()) => {}
            Some(value) => {
                let fault = format!("is {value}; one device trains here: 1, or [2] for the third GPU, is expected");
                return Err(keys.fault("devices", fault));
            }
        }
        Ok(if gpu { Accelerator::One(Device::Cuda(0)) } else { Accelerator::Any })
    }

    /// The device, which is here.
    ///
    /// # Errors
    /// It is not.
    pub fn found(self) -> Result<Device, DeviceError> {
        match self {
            Accelerator::Any => Ok(Device::cuda(0).unwrap_or(Device::Cpu)),
            Accelerator::One(device) => device.found(),
        }
    }
}

/// Every so many steps, or shares of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interval {
    /// Steps.
    Steps(u64),
    /// Epochs, or parts of one.
    Epochs(f64),
}

impl Interval {
    /// In steps, where an epoch has so many.
    pub fn steps(self, epoch: u64) -> u64 {
        match self {
            Interval::Steps(steps) => steps,
            Interval::Epochs(share) => ((share * epoch as f64) as u64).max(1),
        }
    }
}

impl Trainer {
    /// Reads the section.
    ///
    /// # Errors
    /// Keys that are not known, values out of range; a training without end.
    pub fn read(keys: &mut Keys) -> Result<Trainer, RecipeError> {
        // What NeMo's recipes say of processes and Lightning's own habits.
        keys.without_effect(&[
            "num_nodes",
            "strategy",
            "sync_batchnorm",
            "enable_checkpointing",
            "logger",
            "benchmark",
            "enable_progress_bar",
            "num_sanity_val_steps",
            "amp_level",
            "gpus",
            "distributed_backend",
            "use_distributed_sampler",
            "limit_train_batches",
            "checkpoint_callback",
        ]);
        let precision = keys.or("precision", Value::from(32))?;
        let precision = self::precision(&precision).ok_or_else(|| {
            keys.fault("precision", format!("is {precision}; 32, \"bf16\", 16 or one of {} is known", FP8.join(", ")))
        })?;
        // Lightning's -1 means without bound.
        let bound = |keys: &mut Keys, key: &str| -> Result<Option<u64>, RecipeError> {
            match keys.get::<f64>(key)? {
                None | Some(-1.0) => Ok(None),
                Some(n) if n >= 1.0 && n.fract() == 0.0 => Ok(Some(n as u64)),
                Some(n) => Err(keys.fault(key, format!("is {n}; a whole number, at least 1, is expected"))),
            }
        };
        let (max_epochs, max_steps) = (bound(keys, "max_epochs")?, bound(keys, "max_steps")?);
        let max_time = keys.get::<Value>("max_time")?;
        let max_time = max_time.map(|v| time(&v).map_err(|e| keys.fault("max_time", e))).transpose()?;
        if max_epochs.is_none() && max_steps.is_none() {
            return Err(keys.fault("max_steps", "or `max_epochs` must be given: schedules span them"));
        }
        let accumulate = keys.or("accumulate_grad_batches", 1u64)?;
        let accumulate = u32::try_from(accumulate).ok().filter(|n| *n > 0);
        let accumulate =
            accumulate.ok_or_else(|| keys.fault("accumulate_grad_batches", "must be at least 1, and sensible"))?;
        let bound = keys.or("gradient_clip_val", 0.0)?;
        let clip = match (keys.choice("gradient_clip_algorithm", &["norm", "value"])?, bound) {
            (_, 0.0) => Clip::None,
            ("norm", bound) => Clip::Norm(bound),
            (_, bound) => Clip::Value(bound),
        };
        if !(0.0..f64::INFINITY).contains(&bound) {
            return Err(keys.fault("gradient_clip_val", format!("is {bound}; it must be at least 0")));
        }
        let epochs = keys.or("check_val_every_n_epoch", 1u64)?.max(1);
        let validate = match keys.or("val_check_interval", Value::from(1.0))? {
            Value::Number(n) if n.as_u64().is_some_and(|n| n > 0) => Interval::Steps(n.as_u64().unwrap_or(1)),
            Value::Number(n) if n.as_f64().is_some_and(|s| s > 0.0 && s <= 1.0) => {
                Interval::Epochs(n.as_f64().unwrap_or(1.0) * epochs as f64)
            }
            other => {
                let fault = format!("is {other}; a number of steps (100), or a share of an epoch (0.25), is expected");
                return Err(keys.fault("val_check_interval", fault));
            }
        };
        Ok(Trainer {
            max_epochs,
            max_steps,
            max_time,
            accumulate,
            clip,
            validate,
            log_every: keys.or("log_every_n_steps", 10u64)?.max(1),
            save_every: keys.or("save_every_n_steps", 200u64)?.max(1),
            skip_non_finite: keys.or("skip_non_finite", 8u64)?.min(1 << 20) as u32,
            precision,
            place: Accelerator::read(keys)?,
        })
    }

    /// How many updates are made at most, where an epoch has so many batches.
    pub fn total(&self, batches_per_epoch: u64) -> u64 {
        let epochs = self.max_epochs.map(|n| n.saturating_mul(batches_per_epoch) / u64::from(self.accumulate));
        let steps = [self.max_steps, epochs.map(|n| n.max(1))];
        steps.into_iter().flatten().min().unwrap_or(1)
    }
}

/// Recipes of eight bits, by their names here.
const FP8: [&str; 5] = ["fp8", "fp8-delayed", "fp8-rowwise", "fp8-blockwise", "mxfp8"];

/// How products are computed, in Lightning's words: parameters, moments and norms are in single precision always, so
/// `bf16` is `bf16-mixed`. `fp8` scales by the numbers at hand.
fn precision(value: &Value) -> Option<Precision> {
    let word = value.as_u64().map_or_else(|| value.as_str().map(str::to_string), |bits| Some(bits.to_string()))?;
    Some(match word.as_str() {
        "32" | "32-true" | "fp32" => Precision::default(),
        "bf16" | "bf16-mixed" => Compute::Bf16.into(),
        "16" | "16-mixed" | "fp16" => Compute::F16.into(),
        "fp8" => Precision::fp8(Recipe::current()),
        "fp8-delayed" => Precision::fp8(Recipe::delayed()),
        "fp8-rowwise" => Precision::fp8(Recipe::rowwise()),
        "fp8-blockwise" => Precision::fp8(Recipe::blockwise()),
        "mxfp8" => Precision::fp8(Recipe::mxfp8()),
        _ => return None,
    })
}

/// Seconds, `"90s"`, `"5m"`, `"2h"`, or Lightning's `"DD:HH:MM:SS"`.
fn time(value: &Value) -> Result<Duration, String> {
    let fault = || format!("is {value}; seconds, \"5m\", \"2h\" or \"00:00:05:00\" (days to seconds) is expected");
    let seconds = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) if text.contains(':') => {
            let parts: Option<Vec<f64>> = text.split(':').map(|p| p.parse().ok()).collect();
            parts.filter(|p| p.len() == 4).map(|p| ((p[0] * 24.0 + p[1]) * 60.0 + p[2]) * 60.0 + p[3])
        }
        Value::String(text) => {
            let unit = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];
            let named = |(u, by): &(&str, f64)| Some(text.strip_suffix(u)?.trim().parse::<f64>().ok()? * by);
            text.parse().ok().or_else(|| unit.iter().find_map(named))
        }
        _ => None,
    };
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|d| !d.is_zero()).ok_or_else(fault)
}

/// Where a run is kept: the section `exp_manager`.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// The folder of this run: `exp_dir/name`.
    pub folder: PathBuf,
    /// Whether to go on with what is there.
    pub resume: bool,
    /// Whether to write TensorBoard's files.
    pub tensorboard: bool,
    /// How much of parameters' averages stays at each step, where averages are what is judged and kept: `ema`.
    pub average: Option<f64>,
    /// Which models are kept.
    pub kept: Kept,
}

/// Which models a run keeps: `checkpoint_callback_params`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The score that counts (`monitor`, without its `val_`); where nothing is said, the first of the network's.
    pub monitor: Option<String>,
    /// Whether it is better when it is greater (`mode`); where nothing is said, as it is of that score.
    pub greater: Option<bool>,
    /// How many of the best models stay (`save_top_k`): 1 is `best.nemo` alone; all, where nothing is said.
    pub top: Option<usize>,
    /// Whether `last.nemo` is written as often as the checkpoint is (`always_save_nemo`).
    pub always: bool,
}

impl Kept {
    fn read(keys: &mut Keys, scores: &[&str]) -> Result<Kept, RecipeError> {
        keys.without_effect(&[
            "filename",
            "dirpath",
            "prefix",
            "postfix",
            "verbose",
            "save_best_model",
            "save_last",
            "save_weights_only",
            "auto_insert_metric_name",
            "every_n_epochs",
            "every_n_train_steps",
            "train_time_interval",
            "save_on_train_epoch_end",
            "save_nemo_on_train_end",
            "model_parallel_size",
            "save_last_n_optim_states",
            "enable_version_counter",
            "async_save",
        ]);
        let monitor = keys.get::<String>("monitor")?;
        let monitor = monitor.map(|name| match name.strip_prefix("val_").filter(|n| scores.contains(n)) {
            Some(own) => Ok(own.to_string()),
            None => {
                let known: Vec<String> = scores.iter().map(|s| format!("val_{s}")).collect();
                let hint = did_you_mean(&name, &known);
                Err(keys.fault("monitor", format!("is \"{name}\"; {} are known{hint}", known.join(", "))))
            }
        });
        let greater = match keys.get::<String>("mode")?.as_deref() {
            None => None,
            Some("min") => Some(false),
            Some("max") => Some(true),
            Some(other) => return Err(keys.fault("mode", format!("is \"{other}\"; min or max is expected"))),
        };
        let top = match keys.or("save_top_k", 1.0)? {
            -1.0 => None,
            n if n >= 0.0 && n.fract() == 0.0 && n < 1e6 => Some(n as usize),
            n => return Err(keys.fault("save_top_k", format!("is {n}; a whole number, or -1 for all, is expected"))),
        };
        Ok(Kept { monitor: monitor.transpose()?, greater, top, always: keys.or("always_save_nemo", false)? })
    }

    /// The scores with the one first that counts.
    pub(super) fn watched(&self, mut scores: Scores) -> Scores {
        let name = self.monitor.as_deref();
        if let Some(at) = scores.values.iter().position(|(own, _)| Some(*own) == name) {
            // Of what can be first otherwise, accuracies alone are better when greater.
            scores.greater = scores.values[at].0 == "accuracy";
            scores.values[..=at].rotate_right(1);
        }
        scores.greater = self.greater.unwrap_or(scores.greater);
        scores
    }
}

impl Experiment {
    /// Reads the section; `name` is the recipe's, `scores` what its network is judged by.
    ///
    /// # Errors
    /// Keys and scores that are not known, values out of range.
    pub fn read(keys: &mut Keys, name: &str, scores: &[&str]) -> Result<Experiment, RecipeError> {
        keys.without_effect(&[
            "create_checkpoint_callback",
            "resume_ignore_no_checkpoint",
            "create_wandb_logger",
            "wandb_logger_kwargs",
            "version",
            "use_datetime_version",
        ]);
        let average = keys.optional("ema", |keys| {
            keys.without_effect(&["validate_original_weights", "every_n_steps", "cpu_offload", "start_step"]);
            let decay = keys.or("decay", 0.999)?;
            if !(0.0..1.0).contains(&decay) {
                return Err(keys.fault("decay", format!("is {decay}; at least 0 and less than 1 is expected")));
            }
            Ok(keys.or("enable", true)?.then_some(decay))
        })?;
        let folder = keys.or("exp_dir", "runs".to_string())?;
        let name = keys.or("name", name.to_string())?;
        // A name is a part of a path, and not one that leads elsewhere.
        if name.is_empty() || name.contains(['/', '\\']) || name == ".." || name == "." {
            return Err(keys.fault("name", format!("is \"{name}\"; the name of a folder is expected")));
        }
        Ok(Experiment {
            folder: PathBuf::from(folder).join(name),
            resume: keys.or("resume_if_exists", true)?,
            tensorboard: keys.or("create_tensorboard_logger", true)?,
            average: average.flatten(),
            kept: keys.section("checkpoint_callback_params", |k| Kept::read(k, scores))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trainer(section: Value) -> Result<Trainer, String> {
        let mut keys = Keys::new(json!({ "trainer": section })).unwrap();
        keys.section("trainer", Trainer::read).map_err(|e| e.to_string())
    }

    #[test]
    fn bounds() {
        let found = trainer(json!({"max_epochs": 3, "max_steps": -1, "accumulate_grad_batches": 4})).unwrap();
        assert_eq!((found.total(100), found.max_time, found.validate.steps(80)), (75, None, 80));
        let found = trainer(json!({"max_epochs": 3, "max_steps": 50, "val_check_interval": 0.25})).unwrap();
        assert_eq!((found.total(100), found.validate.steps(80)), (50, 20));
        assert_eq!(trainer(json!({"max_steps": 5, "val_check_interval": 7})).unwrap().validate, Interval::Steps(7));
        for (given, seconds) in
            [(json!("00:01:02:03"), 3723.0), (json!("5m"), 300.0), (json!(0.5), 0.5), (json!("90"), 90.0)]
        {
            let found = trainer(json!({"max_steps": 1, "max_time": given})).unwrap();
            assert_eq!(found.max_time, Some(Duration::from_secs_f64(seconds)));
        }
        for (section, says) in [
            (json!({}), "must be given"),
            (json!({"max_steps": 0}), "at least 1"),
            (json!({"max_steps": 1, "max_time": "soon"}), "\"5m\""),
            (json!({"max_steps": 1, "max_time": -1}), "\"5m\""),
            (json!({"max_steps": 1, "precision": 64}), "is known"),
            (json!({"max_steps": 1, "val_check_interval": 1.5}), "share of an epoch"),
            (json!({"max_steps": 1, "gradient_clip_val": -1}), "at least 0"),
            (json!({"max_stesp": 1, "max_steps": 1}), "did you mean `max_steps`"),
        ] {
            let error = trainer(section.clone()).unwrap_err();
            assert!(error.contains(says), "{section}: {error}");
        }
    }

    #[test]
    fn a_run_s_folder() {
        let read = |section: Value| {
            let mut keys = Keys::new(json!({ "exp_manager": section })).unwrap();
            keys.section("exp_manager", |k| Experiment::read(k, "words", &["wer", "cer", "loss"]))
                .map_err(|e| e.to_string())
        };
        assert_eq!(read(json!({"exp_dir": "/x"})).unwrap().folder, PathBuf::from("/x/words"));
        assert!(read(json!({"name": "../../etc"})).unwrap_err().contains("name of a folder"));
        let keep = |section: Value| read(json!({ "checkpoint_callback_params": section })).map(|e| e.kept);
        let found = keep(json!({"monitor": "val_loss", "save_top_k": -1, "filename": "x"})).unwrap();
        assert_eq!(found, Kept { monitor: Some("loss".into()), greater: None, top: None, always: false });
        let scores = || Scores { values: vec![("wer", 0.5), ("cer", 0.3), ("loss", 2.0)], greater: false };
        assert_eq!(found.watched(scores()).values, [("loss", 2.0), ("wer", 0.5), ("cer", 0.3)]);
        assert!(keep(json!({"mode": "max"})).unwrap().watched(scores()).greater);
        for (section, says) in [
            (json!({"monitor": "val_weer"}), "did you mean `val_wer`"),
            (json!({"mode": "best"}), "min or max"),
            (json!({"save_top_k": -2}), "-1 for all"),
            (json!({"save_topk": 2}), "did you mean `save_top_k`"),
        ] {
            let error = keep(section).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
