//! All differences between a checkpoint and a model, in one error.

use super::error::ModelError;
use crate::checkpoint::Source;
use crate::suggest;
use std::fmt;
use std::path::{Path, PathBuf};

/// One tensor that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape, or how shapes differ.
    pub shape: String,
    /// The nearest name on the other side, as the end of a sentence.
    pub hint: String,
}

/// Everything in which a checkpoint and a model differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The checkpoint.
    pub path: PathBuf,
    /// The model's type.
    pub kind: &'static str,
    /// Tensors that the model has and the checkpoint lacks.
    pub missing: Vec<Tensor>,
    /// Tensors that the checkpoint has and the model lacks.
    pub unexpected: Vec<Tensor>,
    /// Tensors of another shape.
    pub misshapen: Vec<Tensor>,
    /// Tensors of another kind of number.
    pub mistyped: Vec<Tensor>,
    /// Names of one tied parameter under which different values are stored.
    pub untied: Vec<(String, String)>,
    /// What would help.
    pub advice: Option<String>,
}

/// Names beyond so many get no "did you mean": a wrong file differs in thousands.
const HINTS: usize = 50;

impl Mismatch {
    pub(super) fn new(path: &Path, kind: &'static str) -> Mismatch {
        Mismatch {
            path: path.into(),
            kind,
            missing: Vec::new(),
            unexpected: Vec::new(),
            misshapen: Vec::new(),
            mistyped: Vec::new(),
            untied: Vec::new(),
            advice: None,
        }
    }

    /// The error, where something differs, with hints.
    pub(super) fn finish(mut self, checkpoint: &dyn Source) -> Result<(), ModelError> {
        let differs = [&self.missing, &self.unexpected, &self.misshapen, &self.mistyped];
        if differs.into_iter().all(Vec::is_empty) {
            return Ok(());
        }
        let spare: Vec<String> = self.unexpected.iter().map(|t| t.name.clone()).collect();
        for tensor in self.missing.iter_mut().take(HINTS) {
            if let Some(near) = suggest::nearest(&tensor.name, &spare) {
                tensor.hint = format!("; the file has `{near}`");
            }
        }
        let wanted: Vec<String> = self.missing.iter().map(|t| t.name.clone()).collect();
        for tensor in self.unexpected.iter_mut().take(HINTS) {
            tensor.hint = suggest::did_you_mean(&tensor.name, &wanted);
        }
        self.advice = self.prefix(checkpoint);
        Err(Box::new(self).into())
    }

    /// Advice where all missing tensors are there under one prefix.
    fn prefix(&self, checkpoint: &dyn Source) -> Option<String> {
        let first = &self.missing.first()?.name;
        let ends = |name: &&str| name.ends_with(&format!(".{first}"));
        checkpoint.names().into_iter().filter(ends).find_map(|name| {
            let prefix = &name[..name.len() - first.len()];
            let all = self.missing.iter().all(|t| checkpoint.info(&format!("{prefix}{}", t.name)).is_some());
            all.then(|| {
                format!("all missing tensors are there under `{prefix}`: load with `LoadOptions::new().prefix(\"{prefix}\")`")
            })
        })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not fit the model `{}`", self.path.display(), self.kind)?;
        let lists = [
            (&self.missing, "missing: the model has, the file lacks"),
            (&self.unexpected, "unexpected: the file has, the model lacks"),
            (&self.misshapen, "of another shape:"),
            (&self.mistyped, "of another kind of number:"),
        ];
        for (list, title) in lists {
            if !list.is_empty() {
                write!(f, "\n  {} {title}", list.len())?;
            }
            for tensor in list {
                write!(f, "\n    {} {}{}", tensor.name, tensor.shape, tensor.hint)?;
            }
        }
        for (a, b) in &self.untied {
            write!(f, "\n  `{a}` and `{b}` are one parameter in the model, but differ in the file")?;
        }
        if let Some(advice) = &self.advice {
            return write!(f, "\n  {advice}");
        }
        match (self.missing.is_empty(), self.unexpected.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => f.write_str("\n  `LoadOptions::allow_missing` fills missing parameters anew"),
            (true, false) => f.write_str("\n  `LoadOptions::allow_unexpected` passes over unexpected tensors"),
            (false, false) => f.write_str(
                "\n  `LoadOptions::rename` maps names; `allow_missing` and `allow_unexpected` take the checkpoint as it is",
            ),
        }
    }
}

impl std::error::Error for Mismatch {}
