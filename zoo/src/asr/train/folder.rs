//! The folder of a run: its recipe, log and event files, and the models that it keeps.

use super::TrainingError;
use super::run::{LAST, Learner, Note, Scores};
use super::settings::Experiment;
use mobilis_runtime::checkpoint::atomic;
use mobilis_runtime::train::tensorboard::EventFile;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The best score so far, and what is kept.
const STATE: &str = "state.json";

/// The folder of a run.
pub(super) struct Folder {
    pub path: PathBuf,
    pub last: PathBuf,
    log: File,
    events: Option<EventFile>,
    /// The best score and its step.
    pub best: Option<(f64, u64)>,
    best_file: Option<String>,
    /// The models of the best validations, the best first.
    kept: Vec<Kept>,
}

impl Folder {
    pub fn open(experiment: &Experiment, recipe: &Value) -> Result<Folder, TrainingError> {
        let path = experiment.folder.clone();
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainingError::Io { action, path, source }
        };
        std::fs::create_dir_all(&path).map_err(failed("make", &path))?;
        let (last, state, kept) = (path.join(LAST), path.join(STATE), path.join("recipe.json"));
        if last.exists() && !experiment.resume {
            let fault = "holds a run, and `exp_manager.resume_if_exists` is false: choose another `name`, or remove it";
            return Err(TrainingError::Folder { folder: path, fault: fault.into() });
        }
        if last.exists() && kept.exists() {
            let before = std::fs::read(&kept).map_err(failed("read", &kept))?;
            let before: Value = serde_json::from_slice(&before).unwrap_or(Value::Null);
            if let Some(key) = difference(&before["model"], &recipe["model"], "model") {
                let fault =
                    format!("holds a run with another `{key}`: choose another `name`, remove it, or set it as it was");
                return Err(TrainingError::Folder { folder: path, fault });
            }
        }
        atomic::replace_text(&kept, &format!("{recipe:#}\n")).map_err(failed("write", &kept))?;
        let (mut best, mut best_file, mut before) = (None, None, vec![]);
        if last.exists()
            && let Ok(text) = std::fs::read(&state)
            && let Ok(found) = serde_json::from_slice::<Value>(&text)
        {
            best = found["score"].as_f64().zip(found["step"].as_u64());
            best_file = found["model"].as_str().map(str::to_string);
            before = kept_in(&found);
        }
        let log = path.join("log.jsonl");
        let log = OpenOptions::new().create(true).append(true).open(&log).map_err(failed("write", &log))?;
        let events = experiment.tensorboard.then(|| EventFile::create(&path)).transpose();
        let events = events.map_err(failed("write", &path))?;
        Ok(Folder { path, last, log, events, best, best_file, kept: before })
    }

    /// Writes a note down.
    pub fn note(&mut self, note: &Note, every: u64) -> Result<(), TrainingError> {
        let mut values = vec![];
        let step = match note {
            Note::Step { step, loss, grad_norm, rate, epoch, .. } if step.is_multiple_of(every) => {
                let names = ["train_loss", "grad_norm", "learning_rate", "epoch"].map(str::to_string);
                values.extend(names.into_iter().zip([*loss, *grad_norm, *rate, *epoch as f64]));
                *step
            }
            Note::Step { .. } => return Ok(()),
            Note::Validation { step, scores, .. } => {
                values.extend(scores.values.iter().map(|(name, value)| (format!("val_{name}"), *value)));
                *step
            }
            Note::Begin { step, .. } | Note::LeftOut { step, .. } => *step,
        };
        let failed = |path: PathBuf| move |source| TrainingError::Io { action: "write", path, source };
        let line = format!("{}\n", note.object());
        self.log.write_all(line.as_bytes()).map_err(failed(self.path.join("log.jsonl")))?;
        if let Some(events) = self.events.as_mut().filter(|_| !values.is_empty()) {
            let values: Vec<(&str, f64)> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let path = events.path().to_path_buf();
            events.scalars(step, &values).map_err(failed(path))?;
        }
        Ok(())
    }

    /// Takes note of a validation: keeps the model if it is one of the best `top`, as `best.nemo` if none was better, and
    /// lets go of the one that is no more. Gives whether none was better.
    pub fn keep(
        &mut self,
        learner: &dyn Learner,
        scores: &Scores,
        step: u64,
        top: Option<usize>,
    ) -> Result<bool, TrainingError> {
        let score = scores.first();
        let better = |a: f64, b: f64| if scores.greater { a > b } else { a < b };
        let best = self.best.is_none_or(|(old, _)| better(score, old) || old.is_nan());
        // A step that is made again after a kill counts once. Whatever is no number comes last.
        self.kept.retain(|kept| kept.step != step);
        let place = self.kept.iter().position(|kept| better(score, kept.score) || kept.score.is_nan());
        let place = place.filter(|_| !score.is_nan()).unwrap_or(self.kept.len());
        let model = match top {
            Some(0) => None,
            Some(1) if best => Some(learner.save(&self.path.join("best"))?),
            Some(top) if top == 1 || place >= top => None,
            _ => Some(learner.save(&self.path.join(format!("step-{step:06}")))?),
        };
        let mut left = vec![];
        if let (Some(model), true) = (&model, top != Some(1)) {
            let model = name(model);
            self.kept.insert(place, Kept { model, score, step });
            left = self.kept.split_off(top.unwrap_or(usize::MAX).min(self.kept.len()));
        }
        if best {
            self.best = Some((score, step));
            self.best_file = model.as_deref().map(name);
            if let (Some(model), true) = (&model, top != Some(1)) {
                let (to, new) = (self.path.join("best.nemo"), self.path.join(".best.nemo.new"));
                let _ = std::fs::remove_file(&new);
                // One file under two names where the file system can; the name changes at once.
                let linked = std::fs::hard_link(model, &new).or_else(|_| std::fs::copy(model, &new).map(|_| ()));
                let done = linked.and_then(|()| std::fs::rename(&new, &to));
                done.map_err(|source| TrainingError::Io { action: "write", path: to.clone(), source })?;
                self.best_file = Some(name(&to));
            }
        }
        if model.is_some() || best {
            self.write_state()?;
        }
        // Only now does nothing name them. What cannot be removed is in nobody's way.
        left.iter().for_each(|kept| drop(std::fs::remove_file(self.path.join(&kept.model))));
        Ok(best)
    }

    fn write_state(&self) -> Result<(), TrainingError> {
        let state = self.path.join(STATE);
        let (score, step) = self.best.unzip();
        let one = |k: &Kept| json!({"model": k.model, "score": k.score, "step": k.step});
        let kept: Vec<Value> = self.kept.iter().map(one).collect();
        let text = format!("{:#}\n", json!({"score": score, "step": step, "model": self.best_file, "kept": kept}));
        let failed = |source| TrainingError::Io { action: "write", path: state.clone(), source };
        atomic::replace_text(&state, &text).map_err(failed)
    }

    pub fn best_model(&self) -> Option<PathBuf> {
        self.best_file.as_ref().map(|name| self.path.join(name))
    }
}

/// A model that is kept beside the best one.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    model: String,
    score: f64,
    step: u64,
}

/// What a run's `state.json` lists. A score that is no number is null there.
fn kept_in(state: &Value) -> Vec<Kept> {
    let one = |k: &Value| {
        let model = k["model"].as_str().filter(|m| Path::new(m).file_name().is_some_and(|n| n == *m))?;
        Some(Kept { model: model.into(), score: k["score"].as_f64().unwrap_or(f64::NAN), step: k["step"].as_u64()? })
    };
    state["kept"].as_array().into_iter().flatten().filter_map(one).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The models that a run has kept (`save_top_k`), the best first, each with the number of its updates.
///
/// # Errors
/// A folder that is no run's.
pub fn kept(folder: &Path) -> Result<Vec<(PathBuf, u64)>, TrainingError> {
    let state = folder.join(STATE);
    let text = std::fs::read(&state).map_err(|source| TrainingError::Io { action: "read", path: state, source })?;
    let found: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    Ok(kept_in(&found).into_iter().map(|k| (folder.join(k.model), k.step)).collect())
}

/// The first key at which two documents differ.
fn difference(a: &Value, b: &Value, key: &str) -> Option<String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys = x.keys().chain(y.keys());
            let null = Value::Null;
            let of = |map: &Map<String, Value>, k: &String| map.get(k).unwrap_or(&null).clone();
            keys.into_iter().find_map(|k| difference(&of(x, k), &of(y, k), &format!("{key}.{k}")))
        }
        _ => (a != b).then(|| key.to_string()),
    }
}
