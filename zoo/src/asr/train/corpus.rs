//! What a recipe says of a corpus, and which utterances that are.

use super::TrainingError;
use crate::asr::data::{Utterance, kaldi, manifest, shards};
use crate::recipe::keys::Setting;
use crate::recipe::{Keys, RecipeError};
use serde_json::Value;
use std::path::Path;

/// A corpus and how it is cut into batches: `train_ds`, `validation_ds`, `test_ds`.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// Manifests, or patterns of their names, in groups: NeMo's buckets.
    pub manifests: Vec<Vec<String>>,
    /// Tar archives, or patterns of their names: of each group of manifests its own.
    pub archives: Vec<Vec<String>>,
    /// Kaldi's data directories.
    pub kaldi: Vec<String>,
    /// The most utterances in a batch.
    pub batch_size: usize,
    /// The most seconds in a batch, padding included.
    pub batch_duration: Option<f64>,
    /// Buckets of like length.
    pub buckets: usize,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Utterances that are shorter are left out.
    pub min_duration: f64,
    /// Utterances that are longer are left out.
    pub max_duration: Option<f64>,
    /// Threads that read.
    pub workers: usize,
    /// What happens to the waveforms: the key `augmentor`.
    pub augmentor: Option<Value>,
}

impl Corpus {
    /// Reads a section of a model at `rate` hertz. Whether `training`, so that the order is shuffled.
    ///
    /// # Errors
    /// Keys that are not known; no corpus; another rate than the model's.
    pub fn read(keys: &mut Keys, rate: u32, training: bool) -> Result<Corpus, RecipeError> {
        keys.without_effect(&[
            "labels",
            "trim_silence",
            "pin_memory",
            "shuffle_n",
            "bucketing_strategy",
            "bucketing_batch_size",
            "use_start_end_token",
            "int_values",
            "tarred_shard_strategy",
            "vad_stream",
            "is_concat",
            "is_tarred",
            "parser",
            "normalize_transcripts",
        ]);
        let own = keys.or("sample_rate", u64::from(rate))?;
        if own != u64::from(rate) {
            return Err(
                keys.fault("sample_rate", format!("is {own}, and the model's is {rate}: sound is resampled to it"))
            );
        }
        let list = |keys: &mut Keys, key: &str| -> Result<Vec<Vec<String>>, RecipeError> {
            match keys.get::<Value>(key)? {
                Some(value) => {
                    groups(&value).ok_or_else(|| keys.fault(key, "is expected to be a name or a list of names"))
                }
                None => Ok(vec![]),
            }
        };
        let (manifests, archives) = (list(keys, "manifest_filepath")?, list(keys, "tarred_audio_filepaths")?);
        let kaldi = list(keys, "kaldi_dir")?.concat();
        let (n, m) = (manifests.len(), archives.len());
        if n > 0 && m > 0 && n != m {
            let fault = format!("has {m} lists, and `manifest_filepath` {n}: one each is expected");
            return Err(keys.fault("tarred_audio_filepaths", fault));
        }
        if manifests.is_empty() && archives.is_empty() && kaldi.is_empty() {
            let fault = "is missing: a manifest, `tarred_audio_filepaths` or `kaldi_dir` is expected";
            return Err(keys.fault("manifest_filepath", fault));
        }
        let batch_duration = keys.get::<f64>("batch_duration")?;
        if batch_duration.is_some_and(|s| s <= 0.0) {
            return Err(keys.fault("batch_duration", "must be more than 0 seconds"));
        }
        // Seconds alone may bound a batch.
        let default = if batch_duration.is_some() { 1024 } else { 32 };
        Ok(Corpus {
            manifests,
            archives,
            kaldi,
            batch_size: keys.or("batch_size", default)?.max(1),
            batch_duration,
            buckets: keys.or("num_buckets", 1usize)?.max(1),
            shuffle: keys.or("shuffle", training)?,
            min_duration: keys.or("min_duration", 0.0)?,
            max_duration: keys.get::<f64>("max_duration")?,
            workers: keys.or("num_workers", 1usize)?.clamp(1, 64),
            augmentor: keys.get::<Value>("augmentor")?,
        })
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &str {
        let listed = self.manifests.iter().chain(&self.archives).flatten();
        listed.chain(&self.kaldi).next().map_or("", String::as_str)
    }

    /// Its utterances; `folder` is where names begin.
    ///
    /// # Errors
    /// Lists that cannot be read.
    pub fn listed(&self, folder: &Path) -> Result<Vec<Utterance>, TrainingError> {
        let mut found = vec![];
        for manifests in self.manifests.iter().filter(|_| self.archives.is_empty()) {
            found.extend(manifest::read_all(folder, manifests)?);
        }
        for (i, archives) in self.archives.iter().enumerate() {
            found.extend(match self.manifests.get(i) {
                Some(manifests) => shards::tarred(folder, manifests, archives)?,
                None => shards::web(folder, archives)?,
            });
        }
        for directory in &self.kaldi {
            found.extend(kaldi::read(&folder.join(directory))?);
        }
        Ok(found)
    }
}

/// A name, or a list of names, is one group; a list of lists has as many.
fn groups(value: &Value) -> Option<Vec<Vec<String>>> {
    match value {
        Value::Array(items) if items.first().is_some_and(Value::is_array) => {
            items.iter().map(|item| groups(item).map(|inner| inner.concat())).collect()
        }
        Value::Array(items) if items.is_empty() => Some(vec![]),
        other => Vec::<String>::of(other).map(|list| vec![list]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn corpora() {
        let read = |section: Value| {
            let mut keys = Keys::new(json!({ "train_ds": section })).unwrap();
            keys.section("train_ds", |k| Corpus::read(k, 16000, true)).map_err(|e| e.to_string())
        };
        let found =
            read(json!({"manifest_filepath": [["a.json"], ["b.json"]], "batch_duration": 60, "pin_memory": true}));
        let found = found.unwrap();
        assert_eq!((found.manifests.len(), found.batch_size, found.shuffle), (2, 1024, true));
        assert_eq!(read(json!({"manifest_filepath": ["a", "b"]})).unwrap().manifests, [["a", "b"]]);
        let uneven = json!({"manifest_filepath": [["a"], ["b"]], "tarred_audio_filepaths": ["a.tar", "b.tar"]});
        assert!(read(uneven).unwrap_err().contains("1 lists, and `manifest_filepath` 2"));
        assert!(read(json!({})).unwrap_err().contains("`train_ds.manifest_filepath` is missing"));
        assert!(read(json!({"manifest_filepath": "a", "sample_rate": 8000})).unwrap_err().contains("is 8000"));
        assert!(read(json!({"manifest_filpath": "a"})).is_err());
    }
}
