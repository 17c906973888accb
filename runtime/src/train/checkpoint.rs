//! Training checkpoints: everything that a run needs to go on as if it had not stopped.
//!
//! One safetensors file, written whole or not at all, holds the model's parameters and buffers,
//! and the step's states by name: moments (`blocks.0.w.adamw.exp_avg`), accumulated gradients,
//! the step counter, the random counter. Its metadata says how many updates were made and
//! how many batches were used, so that a [`Trainer`](super::Trainer) asks for the next one. A
//! resumed run gives bit for bit what an uninterrupted one gives.

use super::run::TrainStep;
use crate::checkpoint::{Checkpoint, CheckpointError, Writer};
use crate::graph::{TensorType, VarDecl, VarId, VarKind};
use crate::module::init::Init;
use crate::module::store::Entry;
use crate::program::Arguments;
use std::path::{Path, PathBuf};

/// The kind of checkpoint in the metadata.
const FORMAT: &str = "mobilis.training";

/// Why a run cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file is no training checkpoint.
    #[error("`{}` is no training checkpoint: {reason}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What its metadata lacks.
        reason: String,
    },
    /// The file is of another model or another optimizer.
    #[error("`{}` does not fit this training step:{}", .path.display(), lines(.faults))]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Every tensor that is missing, left over or of another shape.
        faults: Vec<String>,
    },
}

fn lines(faults: &[String]) -> String {
    faults.iter().map(|f| format!("\n  {f}")).collect()
}

/// A variable that a checkpoint holds.
pub(super) struct Kept {
    pub(super) id: VarId,
    pub(super) name: String,
    pub(super) ty: TensorType,
    pub(super) kind: VarKind,
}

impl Kept {
    /// The model's variables and those that the programs of a step add.
    pub(super) fn all<'a>(model: Vec<Kept>, programs: impl IntoIterator<Item = &'a VarDecl>) -> Vec<Kept> {
        let mut kept = model;
        // Tables belong to the code.
        for decl in programs.into_iter().filter(|decl| !matches!(decl.init, Init::Table(_))) {
            if !kept.iter().any(|k| k.id == decl.id) {
                kept.push(Kept { id: decl.id, name: decl.name.clone(), ty: decl.ty.clone(), kind: decl.kind });
            }
        }
        kept
    }
}

impl<I: Arguments> TrainStep<I> {
    /// Writes a training checkpoint to a `.safetensors` file, whole or not at all. The model
    /// alone is written by [`Model::save`](crate::Model::save).
    ///
    /// # Errors
    /// Those of the system; the file that was there before is intact then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        let values = self.store.lock();
        let mut writer = Writer::new()
            .metadata("format", FORMAT)
            .metadata("steps", &self.steps.to_string())
            .metadata("pending", &self.pending.to_string())
            .metadata("batches", &self.batches.to_string());
        for kept in &self.kept {
            // Before the first step there are no moments.
            if let Some(entry) = values.get(kept.id) {
                writer = writer.add(&kept.name, &entry.sizes, &entry.data)?;
            }
        }
        writer.save(path)
    }

    /// Goes on where the checkpoint at `path` was written: the model's parameters and buffers and
    /// all states take its values. Model, optimizer and options must be those of the run that
    /// wrote it.
    ///
    /// # Errors
    /// A file that cannot be read, is no training checkpoint, or is of another model or another
    /// optimizer (every misfit at once). Nothing is changed then.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), ResumeError> {
        let path = path.as_ref();
        let file = Checkpoint::open(path)?;
        let metadata = |key: &str| file.parts().iter().find_map(|part| part.metadata.get(key)).map(String::as_str);
        let fault = |reason: String| ResumeError::Format { path: path.to_path_buf(), reason };
        if metadata("format") != Some(FORMAT) {
            return Err(fault(format!("its metadata has no `format` of `{FORMAT}`")));
        }
        let number = |key: &str| -> Result<u64, ResumeError> {
            let text = metadata(key).ok_or_else(|| fault(format!("its metadata has no `{key}`")))?;
            text.parse().map_err(|_| fault(format!("`{key}` is \"{text}\" in its metadata, no whole number")))
        };
        let (steps, pending, batches) = (number("steps")?, number("pending")?, number("batches")?);
        if pending >= u64::from(self.options().accumulate) {
            return Err(fault(format!(
                "it stopped within an update after {pending} batches, and this step makes one every {}",
                self.options().accumulate
            )));
        }
        let entries = self.matched(&file, batches == 0)?;
        let mut values = self.store.lock();
        for kept in &self.kept {
            values.remove(kept.id);
        }
        for (id, entry) in entries {
            values.insert(id, entry);
        }
        drop(values);
        (self.steps, self.pending, self.batches) = (steps, pending as u32, batches);
        Ok(())
    }

    /// The value of every variable that the file holds for this step.
    fn matched(&self, file: &Checkpoint, fresh: bool) -> Result<Vec<(VarId, Entry)>, ResumeError> {
        let wide = self.store.lock().is_reference();
        let (mut entries, mut faults) = (vec![], vec![]);
        for kept in &self.kept {
            let Some(stored) = file.get(&kept.name) else {
                // What has not run has no states yet; gradients are summed only by some steps.
                if !(fresh && kept.kind == VarKind::State) {
                    let hint = crate::suggest::did_you_mean(&kept.name, file.tensors().map(|t| t.0));
                    faults.push(format!("`{}` {} is missing{hint}", kept.name, kept.ty));
                }
                continue;
            };
            let known = self.store.lock().get(kept.id).map(|e| e.sizes.clone());
            let expected = known.or_else(|| kept.ty.sizes(self.update.known()).ok());
            if expected.as_ref().is_some_and(|sizes| *sizes != stored.sizes) {
                faults.push(format!("`{}` {} has sizes {:?}", kept.name, kept.ty, stored.sizes));
                continue;
            }
            let read = if wide { Checkpoint::read_wide } else { Checkpoint::read };
            let data = read(file, &kept.name, kept.ty.dtype)?;
            entries.push((kept.id, Entry::new(kept.name.clone(), &stored.sizes, data)));
        }
        for (name, _) in file.tensors().filter(|t| !self.kept.iter().any(|k| k.name == t.0)) {
            faults.push(format!("`{name}` belongs to nothing here"));
        }
        if faults.is_empty() {
            return Ok(entries);
        }
        Err(ResumeError::Misfit { path: file.path().to_path_buf(), faults })
    }
}
