//! The mean of several checkpoints of one model (NeMo: `scripts/checkpoint_averaging`), which often hears better than
//! any of them.
//!
//! A [`Mean`] is a source of tensors like any other: of each tensor it sums the values of all checkpoints in double
//! precision when it is asked for, so memory holds one. What is not real (counts of batches) is the first one's.

use crate::import::{ImportError, Pretrained};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Encoding, Raw, TensorInfo, encoding};
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use std::path::Path;

/// Tensors that are means of those of several checkpoints.
#[derive(Debug)]
pub struct Mean(Vec<Box<dyn Source>>);

impl Mean {
    /// Of at least one checkpoint.
    ///
    /// # Errors
    /// None; a tensor that one has and another lacks, or that has another size there.
    pub fn of(checkpoints: Vec<Box<dyn Source>>) -> Result<Mean, ImportError> {
        let Some((first, others)) = checkpoints.split_first() else {
            return Err(ImportError::Export("a mean is of at least one model, and none is given".into()));
        };
        for other in others {
            let (a, b) = (first.path().display(), other.path().display());
            let differ = |fault: String| ImportError::Export(format!("`{a}` and `{b}` are not of one model: {fault}"));
            if let Some(name) = first.names().into_iter().find(|name| other.info(name).is_none()) {
                return Err(differ(format!("tensor `{name}` is in the first alone")));
            }
            for name in other.names() {
                let sizes = |source: &dyn Source| source.info(name).map(|info| info.sizes);
                let Some(here) = sizes(&**first) else {
                    return Err(differ(format!("tensor `{name}` is in the second alone")));
                };
                if let Some(there) = sizes(&**other).filter(|there| *there != here) {
                    return Err(differ(format!("tensor `{name}` has sizes {here:?} and {there:?}")));
                }
            }
        }
        Ok(Mean(checkpoints))
    }
}

/// The mean of models: what the first says of itself, with the mean of all tensors.
///
/// # Errors
/// Those of [`Mean::of`].
pub fn average(models: Vec<Pretrained>) -> Result<Pretrained, ImportError> {
    let mut said = None;
    let mut tensors = vec![];
    for model in models {
        let Pretrained { path, config, generation_config, tensors: own, tokenizer } = model;
        tensors.push(own);
        said.get_or_insert((path, config, generation_config, tokenizer));
    }
    let tensors = Box::new(Mean::of(tensors)?);
    // There is a first model where there is a mean.
    let none = || ImportError::Export("a mean is of at least one model, and none is given".into());
    let (path, config, generation_config, tokenizer) = said.ok_or_else(none)?;
    Ok(Pretrained { path, config, generation_config, tensors, tokenizer })
}

impl Source for Mean {
    fn path(&self) -> &Path {
        self.0.first().map_or(Path::new(""), |first| first.path())
    }

    fn names(&self) -> Vec<&str> {
        self.0.first().map_or(vec![], |first| first.names())
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.0.first()?.info(name)?;
        let stored = if encoding::is_real(info.encoding) { Encoding::F32 } else { info.encoding };
        Some(TensorInfo { encoding: stored, ..info })
    }

    fn has_values(&self) -> bool {
        self.0.iter().all(|source| source.has_values())
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        let info = self.find(name)?;
        if !encoding::is_real(info.encoding) {
            return self.0[0].raw(name);
        }
        let mut sums = vec![];
        for source in &self.0 {
            if let Data::F64(values) = source.read(name, DType::F32, true)? {
                // As many as were read, not as a header says.
                sums.resize(values.len(), 0.0);
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        let count = self.0.len() as f64;
        Ok(Raw::Bytes(sums.into_iter().flat_map(|sum| ((sum / count) as f32).to_le_bytes()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobilis_runtime::checkpoint::{Checkpoint, Writer};

    #[test]
    fn reals_are_averaged_and_counts_kept() {
        let folder = std::env::temp_dir().join(format!("mobilis-mean-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, values: &[f32], encoding, count: i32| -> Box<dyn Source> {
            let path = folder.join(name);
            let (values, count) = (Data::F32(values.to_vec()), Data::I32(vec![count]));
            let sizes = [2, values.len() / 2];
            let writer = Writer::new().add_as("w", &sizes, &values, encoding).unwrap();
            writer.add("seen", &[1], &count).unwrap().save(&path).unwrap();
            Box::new(Checkpoint::open(&path).unwrap())
        };
        let one = || write("a.safetensors", &[1.0, -2.0, 3.0, 1e-7], Encoding::F32, 7);
        let other = || write("b.safetensors", &[2.0, 2.0, 0.5, 0.0], Encoding::BF16, 9);
        let mean = Mean::of(vec![one(), other()]).unwrap();
        assert_eq!(mean.names(), ["seen", "w"]);
        assert_eq!(mean.read("w", DType::F32, false).unwrap(), Data::F32(vec![1.5, 0.0, 1.75, 5e-8]));
        assert_eq!(mean.read("seen", DType::I32, false).unwrap(), Data::I32(vec![7]));
        let longer = write("c.safetensors", &[0.0; 6], Encoding::F32, 1);
        let error = Mean::of(vec![one(), longer]).unwrap_err().to_string();
        assert!(error.contains("`w` has sizes [2, 2] and [2, 3]"), "{error}");
        assert!(Mean::of(vec![]).unwrap_err().to_string().contains("at least one"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
