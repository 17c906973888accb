//! What a network tells apart: classes, letters, or pieces of words.
//!
//! A recipe names labels (`model.labels`), a tokenizer's files (`model.tokenizer.dir`), or how to train one from the
//! corpus's text (`model.tokenizer.train`); a run that starts from an archive may keep the archive's. A [`Vocabulary`] turns
//! an utterance into a network's indices and back, and knows what an archive has to hold of it.

use super::TrainingError;
use crate::asr::data::Utterance;
use crate::asr::decode::Labels;
use crate::import::nemo::{Archive, REFERENCE};
use crate::recipe::{Keys, RecipeError};
use crate::text::sentencepiece::{ModelKind, proto, train::train};
use crate::text::{TextError, Tokenizer};
use mobilis_runtime::checkpoint::atomic;
use mobilis_runtime::suggest::did_you_mean;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The names of a tokenizer's files, here and in an archive.
const MODEL: &str = "tokenizer.model";
const VOCAB: &str = "vocab.txt";
const SCORES: &str = "tokenizer.vocab";
const JSON: &str = "tokenizer.json";

/// What a recipe says of tokens: read before anything is opened.
#[derive(Clone, Debug, PartialEq)]
pub enum TokensRecipe {
    /// Letters, or classes of whole recordings.
    Labels(Vec<String>),
    /// A tokenizer's file, or a folder with one.
    Files(PathBuf),
    /// A SentencePiece model of so many pieces, from the corpus's text.
    Trained {
        /// How text is cut.
        kind: ModelKind,
        /// Pieces, the unknown one among them.
        size: usize,
    },
    /// The tokenizer of the archive that the run starts from.
    Archived(Value),
}

impl TokensRecipe {
    /// Reads `labels` and `tokenizer` of a model; `start` is the configuration that the run starts from.
    ///
    /// # Errors
    /// Neither is there; keys that are not known; labels that are alike.
    pub fn read(keys: &mut Keys, start: Option<&Value>) -> Result<TokensRecipe, RecipeError> {
        let own = keys.get::<Vec<String>>("labels")?;
        let tokenizer = keys.optional("tokenizer", |keys| {
            keys.choice("type", &["bpe", "wpe", "hf"])?;
            // Where NeMo found the files once, and what it told others of them.
            keys.without_effect(&["model_path", "vocab_path", "spe_tokenizer_vocab", "hf_kwargs", "custom_tokenizer"]);
            let trained = keys.optional("train", |keys| {
                let kind = match keys.choice("kind", &["unigram", "bpe"])? {
                    "bpe" => ModelKind::Bpe,
                    _ => ModelKind::Unigram,
                };
                Ok(TokensRecipe::Trained { kind, size: keys.or("vocab_size", 128usize)? })
            })?;
            match (keys.get::<String>("dir")?, trained) {
                (Some(_), Some(_)) => Err(keys.fault("train", "and `dir` are both given: one is expected")),
                (Some(dir), None) => Ok(TokensRecipe::Files(dir.into())),
                (None, Some(trained)) => Ok(trained),
                (None, None) => Err(keys.fault("dir", "is missing: a tokenizer's folder, or a section `train`")),
            }
        })?;
        if let Some(tokenizer) = tokenizer {
            return Ok(tokenizer);
        }
        let archived = start.map(|config| &config["tokenizer"]).filter(|section| section.is_object());
        if let (None, Some(section)) = (&own, archived) {
            return Ok(TokensRecipe::Archived(section.clone()));
        }
        let kept = || {
            let config = start?;
            let lists = [&config["labels"], &config["decoder"]["vocabulary"], &config["joint"]["vocabulary"]];
            lists.into_iter().find_map(|list| serde_json::from_value::<Vec<String>>(list.clone()).ok())
        };
        let labels = own.or_else(kept);
        let labels = labels.ok_or_else(|| keys.fault("labels", "are missing: letters, or a `tokenizer`"))?;
        for (i, label) in labels.iter().enumerate() {
            if labels[..i].contains(label) {
                return Err(keys.fault("labels", format!("have \"{label}\" twice")));
            }
        }
        if labels.is_empty() || labels.len() > 1 << 16 {
            return Err(keys.fault("labels", format!("are {}; 1 to 65536 are expected", labels.len())));
        }
        Ok(TokensRecipe::Labels(labels))
    }

    /// Whether they are pieces of words.
    pub fn are_pieces(&self) -> bool {
        !matches!(self, TokensRecipe::Labels(_))
    }

    /// The tokens themselves. `folder` is the run's: a tokenizer that it has trained before is taken from there.
    ///
    /// # Errors
    /// Files that cannot be read or are no tokenizer; text that none can be trained from.
    pub fn open(
        &self,
        classes: bool,
        folder: &Path,
        start: Option<&Archive>,
        utterances: &[Utterance],
    ) -> Result<Vocabulary, TrainingError> {
        match self {
            TokensRecipe::Labels(labels) => Ok(Vocabulary::labels(labels.clone(), classes)),
            TokensRecipe::Files(path) => Vocabulary::files(path),
            TokensRecipe::Trained { kind, size } => {
                let kept = folder.join(MODEL);
                if folder.join(super::run::LAST).exists() && kept.exists() {
                    return Vocabulary::files(&kept);
                }
                let texts = utterances.iter().filter_map(|u| u.text.as_deref());
                let file = train(*kind, texts, *size).map_err(TrainingError::model)?;
                Vocabulary::sentencepiece(proto::write(&file)).map_err(TrainingError::model)
            }
            TokensRecipe::Archived(section) => {
                let archive = start.ok_or_else(|| RecipeError::new("init_from_nemo_model", "is missing"))?;
                let of = |key: &str| section[key].as_str().map(|name| archive.artifacts.read(name));
                let word_pieces = section["type"].as_str() == Some("wpe");
                let found = of(if word_pieces { "vocab_path" } else { "model_path" });
                let bytes = found.ok_or_else(|| RecipeError::new("model.tokenizer", "of the archive names no file"))?;
                let bytes = bytes.map_err(TrainingError::model)?;
                let name = if word_pieces { VOCAB } else { section["model_path"].as_str().unwrap_or(MODEL) };
                Vocabulary::of_bytes(name, bytes).map_err(TrainingError::model)
            }
        }
    }
}

/// What indices stand for.
enum Unit {
    Class,
    Letter,
    Piece(Tokenizer),
}

/// What a network tells apart.
pub struct Vocabulary {
    unit: Unit,
    /// The names of the indices, as NeMo's configurations list them.
    pub names: Vec<String>,
    texts: Labels,
    places: HashMap<String, i32>,
    /// Of a configuration.
    section: Value,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Vocabulary {
    fn new(unit: Unit, names: Vec<String>, texts: Labels) -> Vocabulary {
        let places = names.iter().zip(0..).map(|(label, i)| (label.clone(), i)).collect();
        Vocabulary { unit, names, texts, places, section: Value::Null, files: vec![] }
    }

    /// Classes of whole recordings, or letters.
    pub fn labels(labels: Vec<String>, classes: bool) -> Vocabulary {
        let texts = Labels::characters(&labels);
        Vocabulary::new(if classes { Unit::Class } else { Unit::Letter }, labels, texts)
    }

    /// A tokenizer's file, or the first in a folder of those that are known.
    fn files(path: &Path) -> Result<Vocabulary, TrainingError> {
        let path = match path.is_dir() {
            false => path.to_path_buf(),
            true => [MODEL, JSON, VOCAB].iter().map(|name| path.join(name)).find(|p| p.is_file()).ok_or_else(|| {
                let fault = format!("is `{}`, which has none of {MODEL}, {JSON} and {VOCAB}", path.display());
                RecipeError::new("model.tokenizer.dir", fault)
            })?,
        };
        let failed = |source| TrainingError::Io { action: "read", path: path.clone(), source };
        let bytes = std::fs::read(&path).map_err(failed)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Vocabulary::of_bytes(&name, bytes).map_err(TrainingError::model)
    }

    fn of_bytes(name: &str, bytes: Vec<u8>) -> Result<Vocabulary, TextError> {
        match name.rsplit('.').next() {
            Some("model") => Vocabulary::sentencepiece(bytes),
            Some("json") => {
                let tokenizer = Tokenizer::from_json(&bytes, Default::default())?;
                Vocabulary::pieces(tokenizer, json!({"type": "hf", "model_path": reference(JSON)}), vec![(JSON, bytes)])
            }
            _ => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let tokenizer = Tokenizer::from_word_pieces(&text, Default::default())?;
                Vocabulary::pieces(
                    tokenizer,
                    json!({"dir": null, "type": "wpe", "vocab_path": reference(VOCAB)}),
                    vec![(VOCAB, bytes)],
                )
            }
        }
    }

    /// A SentencePiece model, with the lists beside it that NeMo wants.
    fn sentencepiece(bytes: Vec<u8>) -> Result<Vocabulary, TextError> {
        let file = proto::read(&bytes)?;
        let (mut words, mut scores) = (String::new(), String::new());
        for piece in &file.pieces {
            scores += &format!("{}\t{}\n", piece.text, piece.score);
            let word = match piece.text.strip_prefix('\u{2581}') {
                Some(begun) => begun.to_string(),
                None => format!("##{}", piece.text),
            };
            if !word.is_empty() && piece.text != "<unk>" {
                words += &format!("{word}\n");
            }
        }
        // NeMo wants a `dir`, too, which an archive does not have.
        let section = json!({
            "dir": null, "type": "bpe", "model_path": reference(MODEL), "vocab_path": reference(VOCAB),
            "spe_tokenizer_vocab": reference(SCORES),
        });
        let tokenizer = Tokenizer::from_sentencepiece(&bytes, Default::default())?;
        let files = vec![(MODEL, bytes), (VOCAB, words.into_bytes()), (SCORES, scores.into_bytes())];
        Vocabulary::pieces(tokenizer, section, files)
    }

    fn pieces(
        tokenizer: Tokenizer,
        section: Value,
        files: Vec<(&'static str, Vec<u8>)>,
    ) -> Result<Vocabulary, TextError> {
        let vocabulary: Vec<String> =
            (0..tokenizer.len()).map(|id| tokenizer.token(id as u32).unwrap_or_default()).collect();
        let begins = |mark: &str| vocabulary.iter().any(|token| token.starts_with(mark));
        let texts = if begins("\u{2581}") {
            Labels::sentence_pieces(&vocabulary)
        } else if begins("##") {
            Labels::word_pieces(&vocabulary)
        } else {
            let why = "marks words neither with `▁` nor with `##`, as SentencePiece and WordPiece do".to_string();
            return Err(TextError::Unsupported { what: "tokenizer".into(), why });
        };
        let mut tokens = Vocabulary::new(Unit::Piece(tokenizer), vocabulary, texts);
        (tokens.section, tokens.files) = (section, files);
        Ok(tokens)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Whether each is a whole recording's.
    pub fn are_classes(&self) -> bool {
        matches!(self.unit, Unit::Class)
    }

    /// The configuration's `tokenizer`, where there is one.
    pub fn section(&self) -> &Value {
        &self.section
    }

    /// Writes the tokenizer's files into a folder, from which archives take them; those that are there stay.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, folder: &Path) -> Result<(), TrainingError> {
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|old| old == *bytes) {
                continue;
            }
            let failed = |source| TrainingError::Io { action: "write", path: path.clone(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
            atomic::replace(&path, |out| std::io::Write::write_all(out, bytes)).map_err(failed)?;
        }
        Ok(())
    }

    /// The labels of an utterance as the network's indices.
    ///
    /// # Errors
    /// An utterance without text or label; a letter or a label that there is not.
    pub fn of(&self, utterance: &Utterance) -> Result<Vec<i32>, String> {
        if self.are_classes() {
            let label = utterance.label.as_ref().ok_or("no `label` or `command` is given")?;
            let unknown = || format!("`{label}` is not one of `model.labels`{}", did_you_mean(label, &self.names));
            return Ok(vec![*self.places.get(label).ok_or_else(unknown)?]);
        }
        let text = utterance.text.as_ref().ok_or("no `text` is given")?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Unit::Piece(tokenizer) = &self.unit {
            let ids = tokenizer.encode(&text, false).map_err(|e| e.to_string())?;
            return Ok(ids.into_iter().map(|id| id as i32).collect());
        }
        let lower = !self.names.iter().any(|l| l.chars().any(char::is_uppercase));
        let text = if lower { text.to_lowercase() } else { text };
        let mut letter = [0; 4];
        let of = |c: char| {
            let place = self.places.get(c.encode_utf8(&mut letter) as &str);
            place.copied().ok_or_else(|| format!("its text has '{c}', which `model.labels` do not"))
        };
        text.chars().map(of).collect()
    }

    /// What indices say.
    pub fn text(&self, ids: impl IntoIterator<Item = u32>) -> String {
        self.texts.text(ids)
    }
}

fn reference(name: &str) -> String {
    format!("{REFERENCE}{name}")
}
