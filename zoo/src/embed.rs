//! Texts to vectors: an encoder, its tokenizer, and how the vectors of tokens become one.
//!
//! Reimers and Gurevych 2019 (<https://arxiv.org/abs/1908.10084>). [`Settings::of`] reads what the
//! `sentence-transformers` library writes beside a checkpoint: `modules.json` (which steps there
//! are), `1_Pooling/config.json` (which vector stands for a text), `sentence_bert_config.json` (how
//! many tokens count). [`Embedder::embed`] sorts texts by length, so that little is padded, works on
//! batches of them, and gives vectors in the order of the texts.

use crate::llm::encoder::{EncoderModel, Pooling};
use crate::text::{TextError, Tokenizer};
use mobilis_runtime::ProgramError;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why texts have no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// A file of settings that makes no sense.
    #[error("{}: {fault}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A text that is no tokens.
    #[error("text {index}: {source}")]
    Text {
        /// Which text, counted from 0.
        index: usize,
        /// Why.
        source: TextError,
    },
    /// A model that cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which vector stands for a text.
    pub pooling: Pooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// The most tokens of a text, special ones included; what is beyond does not count.
    pub tokens: Option<usize>,
}

impl Default for Settings {
    /// The mean, of length 1, as many tokens as the model has positions for.
    fn default() -> Self {
        Settings { pooling: Pooling::Mean, normalize: true, tokens: None }
    }
}

/// The names of poolings in `1_Pooling/config.json`.
const POOLINGS: [(&str, Option<Pooling>); 6] = [
    ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
    ("pooling_mode_cls_token", Some(Pooling::Cls)),
    ("pooling_mode_lasttoken", Some(Pooling::Last)),
    ("pooling_mode_max_tokens", Some(Pooling::Max)),
    ("pooling_mode_mean_sqrt_len_tokens", None),
    ("pooling_mode_weightedmean_tokens", None),
];

impl Settings {
    /// The settings beside a checkpoint; [`Settings::default`] where a folder has none.
    ///
    /// # Errors
    /// Files that cannot be read, and steps that are not known here.
    pub fn of(folder: &Path) -> Result<Settings, EmbedError> {
        let mut settings = Settings::default();
        let modules = folder.join("modules.json");
        let mut pooling = folder.join("1_Pooling");
        if let Some(steps) = read(&modules)? {
            let fault = |fault: String| EmbedError::Settings { path: modules.clone(), fault };
            let steps = steps.as_array().ok_or_else(|| fault("a list of steps is expected".into()))?;
            settings.normalize = false;
            for step in steps {
                let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
                match text("type").rsplit('.').next().unwrap_or_default() {
                    "Transformer" => {}
                    "Pooling" => pooling = folder.join(within(text("path")).map_err(fault)?),
                    "Normalize" => settings.normalize = true,
                    other => {
                        let known = "Transformer, Pooling and Normalize are known";
                        return Err(fault(format!("there is a step `{other}`; {known}")));
                    }
                }
            }
        }
        let path = pooling.join("config.json");
        if let Some(found) = read(&path)? {
            let fault = |fault: String| EmbedError::Settings { path: path.clone(), fault };
            let on = POOLINGS.iter().filter(|(key, _)| found.get(key).and_then(Value::as_bool) == Some(true));
            settings.pooling = match on.collect::<Vec<_>>()[..] {
                [(_, Some(pooling))] => *pooling,
                [(key, None)] => return Err(fault(format!("`{key}` is not known here"))),
                [] => match found.get("pooling_mode").and_then(Value::as_str) {
                    None | Some("mean") => Pooling::Mean,
                    Some("cls") => Pooling::Cls,
                    Some("lasttoken") => Pooling::Last,
                    Some("max") => Pooling::Max,
                    Some(other) => return Err(fault(format!("the pooling `{other}` is not known here"))),
                },
                _ => return Err(fault("several poolings are joined: one is known here".into())),
            };
        }
        let path = folder.join("sentence_bert_config.json");
        if let Some(found) = read(&path)? {
            settings.tokens = found.get("max_seq_length").and_then(Value::as_u64).map(|n| n as usize);
        }
        Ok(settings)
    }
}

/// A JSON file, where there is one.
fn read(path: &Path) -> Result<Option<Value>, EmbedError> {
    if !path.is_file() {
        return Ok(None);
    }
    let fault = |e: crate::import::ImportError| EmbedError::Settings { path: path.into(), fault: e.to_string() };
    crate::import::json::read(path).map(Some).map_err(fault)
}

/// A folder's name that does not lead out of the checkpoint.
fn within(name: &str) -> Result<&str, String> {
    let plain = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if plain { Ok(name) } else { Err(format!("the path `{name}` leads out of the folder")) }
}

/// Texts that are worked on together.
const TEXTS: usize = 32;
/// Tokens that are worked on together, padding included.
const TOKENS: usize = 8192;

/// An encoder with its tokenizer.
pub struct Embedder {
    model: Box<dyn EncoderModel>,
    tokenizer: Tokenizer,
    settings: Settings,
    /// The most tokens of a text.
    tokens: usize,
}

impl Embedder {
    /// An encoder with its tokenizer and settings. Texts are cut to what the model has positions for
    /// in any case.
    pub fn new(model: Box<dyn EncoderModel>, tokenizer: Tokenizer, settings: Settings) -> Embedder {
        let tokens = settings.tokens.unwrap_or(usize::MAX).min(model.positions()).max(1);
        Embedder { model, tokenizer, settings, tokens }
    }

    /// The model.
    pub fn model(&self) -> &dyn EncoderModel {
        &*self.model
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// A text's tokens, with those that stand around a text, and whether some were cut off. What
    /// stands behind a text stays behind what is left of it.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<(Vec<u32>, bool), TextError> {
        let mut ids = self.tokenizer.encode(text, true)?;
        if ids.len() <= self.tokens {
            return Ok((ids, false));
        }
        let behind = ids.iter().rev().take_while(|id| self.tokenizer.is_special(**id)).count();
        let behind = behind.min(self.tokens);
        ids.drain(self.tokens - behind..ids.len() - behind);
        Ok((ids, true))
    }

    /// A vector for each text, in the order of the texts. `tell` hears how many are done.
    ///
    /// # Errors
    /// Texts that the tokenizer refuses.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T], mut tell: impl FnMut(usize)) -> Result<Embeddings, EmbedError> {
        let mut found = Embeddings { vectors: vec![vec![]; texts.len()], tokens: 0, cut: 0 };
        let mut rows = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let tokens = self.tokens(text.as_ref()).map_err(|source| EmbedError::Text { index, source })?;
            found.tokens += tokens.0.len();
            found.cut += usize::from(tokens.1);
            rows.push(tokens.0);
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(rows[*i].len()));
        let (mut rest, mut done) = (&order[..], 0);
        while let Some(longest) = rest.first() {
            let together = TEXTS.min(TOKENS / rows[*longest].len().max(1)).clamp(1, rest.len());
            let (batch, later) = rest.split_at(together);
            let ids: Vec<&[u32]> = batch.iter().map(|i| &rows[*i][..]).collect();
            let values = self.model.embed(&ids, self.settings.pooling, self.settings.normalize)?;
            let width = values.sizes[1];
            for (i, vector) in batch.iter().zip(values.data.chunks_exact(width.max(1))) {
                found.vectors[*i] = vector.to_vec();
            }
            rest = later;
            done += together;
            tell(done);
        }
        Ok(found)
    }
}

/// The vectors of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One of each text.
    pub vectors: Vec<Vec<f32>>,
    /// How many tokens were looked at.
    pub tokens: usize,
    /// How many texts were longer than the model takes.
    pub cut: usize,
}

/// The cosine of the angle between two vectors; 0 where one has no length.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_sentence_transformers() {
        let folder = std::env::temp_dir().join(format!("mobilis-embed-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("2_Other")).expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
        assert_eq!(Settings::of(&folder).expect("settings"), Settings::default());
        let step =
            |path: &str, kind: &str| format!(r#"{{"path": "{path}", "type": "sentence_transformers.models.{kind}"}}"#);
        write("modules.json", &format!("[{}, {}]", step("", "Transformer"), step("2_Other", "Pooling")));
        write("2_Other/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#);
        write("sentence_bert_config.json", r#"{"max_seq_length": 256}"#);
        let expected = Settings { pooling: Pooling::Cls, normalize: false, tokens: Some(256) };
        assert_eq!(Settings::of(&folder).expect("settings"), expected);

        let fault = || Settings::of(&folder).expect_err("a fault").to_string();
        write("2_Other/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#);
        assert!(fault().contains("several poolings"));
        write("modules.json", &format!("[{}]", step("../x", "Pooling")));
        assert!(fault().contains("leads out"));
        write("modules.json", &format!("[{}]", step("", "Dense")));
        assert!(fault().contains("`Dense`"));
        write("modules.json", "[");
        assert!(fault().contains("modules.json"));
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }

    #[test]
    fn cosines() {
        assert!((cosine(&[1.0, 1.0], &[2.0, 0.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
