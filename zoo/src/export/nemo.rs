//! `.nemo` archives that NeMo restores: a tar without compression, of configuration, weights and artifacts.
//!
//! The configuration must be one of NeMo's, with its `target`, and the tensors have NeMo's names: so it is with
//! what was opened from an archive or trained here as one of its models. Nothing is translated.

use super::{ExportOptions, Precision, io, torch};
use crate::import::nemo::{CONFIG, WEIGHTS, target, yaml};
use crate::import::{ImportError, Pretrained, TokenizerFiles};
use mobilis_runtime::checkpoint::atomic;
use std::fs::{self, File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// The version whose archives these are like.
const VERSION: &str = "2.0.0";

/// Writes an archive.
pub(super) fn export(model: &Pretrained, to: &Path, options: &ExportOptions) -> Result<Vec<String>, ImportError> {
    if matches!(options.precision, Precision::Q8_0 | Precision::Q4_0) {
        let name = options.precision.name();
        return Err(ImportError::Export(format!("`.nemo` archives have no {name}: give f32, f16 or bf16")));
    }
    if target(&model.config).is_none() {
        return Err(ImportError::Export(
            "a `.nemo` archive holds a model of NeMo's, whose configuration has a `target` such as `nemo.collections.asr.models.EncDecCTCModel`: this one has none".into(),
        ));
    }
    let mut config = model.config.clone();
    if let Some(object) = config.as_object_mut()
        && !object.contains_key("nemo_version")
    {
        object.insert("nemo_version".into(), VERSION.into());
    }
    let config = yaml::print(&config).map_err(|e| ImportError::Export(format!("the configuration is no YAML: {e}")))?;
    let artifacts = artifacts(model)?;
    // A tar says how long a member is before it: the weights are written beside it first.
    let weights = Scratch::beside(to)?;
    let file = OpenOptions::new().write(true).create_new(true).open(&weights.0).map_err(io("write", &weights.0))?;
    let mut out = BufWriter::new(file);
    torch::write(&mut out, &*model.tensors, options.precision).map_err(io("write", to))?;
    out.into_inner().map_err(|e| io("write", to)(e.into_error()))?;
    atomic::replace(to, |out| {
        let mut tar = tar::Builder::new(out);
        let mut add = |name: &str, len: u64, data: &mut dyn std::io::Read| {
            let mut header = tar::Header::new_gnu();
            header.set_size(len);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            let name = format!("./{name}");
            // The library leaves `./` out, and NeMo's readers have it.
            match header.as_old_mut().name.get_mut(..name.len()) {
                Some(place) => {
                    place.copy_from_slice(name.as_bytes());
                    header.set_cksum();
                    tar.append(&header, data)
                }
                None => tar.append_data(&mut header, name, data),
            }
        };
        add(CONFIG, config.len() as u64, &mut config.as_bytes())?;
        for (name, bytes) in &artifacts {
            add(name, bytes.len() as u64, &mut &bytes[..])?;
        }
        let mut file = File::open(&weights.0)?;
        let len = file.metadata()?.len();
        add(WEIGHTS, len, &mut file)?;
        tar.finish()
    })
    .map_err(io("write", to))?;
    Ok(unopened(&model.config).into_iter().collect())
}

/// Why NeMo does not open the archive of a configuration, where its tokenizer is the reason: it has SentencePiece models
/// (`bpe`, beside which it wants a list of words), lists of WordPieces (`wpe`), and several of them (`agg`).
pub(crate) fn unopened(config: &serde_json::Value) -> Option<String> {
    let section = config["tokenizer"].as_object()?;
    let known = |section: &serde_json::Map<String, serde_json::Value>| {
        let has = |keys: &[&str]| keys.iter().all(|key| section.get(*key).is_some_and(|v| v.is_string()));
        match section.get("type").and_then(|v| v.as_str()).map(str::to_lowercase).as_deref() {
            Some("bpe") => has(&["model_path", "vocab_path"]),
            Some("wpe") => has(&["vocab_path"]),
            _ => false,
        }
    };
    let langs = section.get("langs").and_then(|v| v.as_object()).filter(|_| section.get("type") == Some(&"agg".into()));
    let opens = match langs {
        Some(langs) => langs.values().all(|one| one.as_object().is_some_and(known)),
        None => known(section),
    };
    let kind = section.get("type").map_or("none".to_string(), |kind| kind.to_string());
    (!opens).then(|| {
        format!(
            "NeMo does not open the archive: its tokenizer is of the type {kind}, and NeMo takes a SentencePiece model \
             with a list of words (`bpe`) or WordPieces (`wpe`). Here it opens"
        )
    })
}

/// The files that the configuration refers to.
fn artifacts(model: &Pretrained) -> Result<Vec<(String, Vec<u8>)>, ImportError> {
    match &model.tokenizer {
        TokenizerFiles::Nemo { artifacts, .. } => {
            artifacts.names().into_iter().map(|name| Ok((name.to_string(), artifacts.read(name)?))).collect()
        }
        TokenizerFiles::Folder(folder) => {
            let mut names = Vec::new();
            references(&model.config, &mut names);
            names
                .into_iter()
                .map(|name| {
                    let path = folder.join(&name);
                    Ok((name, fs::read(&path).map_err(io("read", &path))?))
                })
                .collect()
        }
        TokenizerFiles::Gguf(_) => Ok(Vec::new()),
    }
}

/// What a configuration refers to as `nemo:NAME`, where the name is that of a file.
fn references(value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => {
            if let Some(name) = text.strip_prefix(crate::import::nemo::REFERENCE)
                && Path::new(name).file_name().is_some_and(|n| n == name)
                && !out.iter().any(|n| n == name)
            {
                out.push(name.to_string());
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        serde_json::Value::Object(entries) => entries.values().for_each(|v| references(v, out)),
        _ => {}
    }
}

/// A file that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(to: &Path) -> Result<Scratch, ImportError> {
        let name = to.file_name().ok_or_else(|| ImportError::Export(format!("`{}` names no file", to.display())))?;
        let path = to.with_file_name(format!(".{}.{}-weights.tmp", name.to_string_lossy(), std::process::id()));
        // One of a process that died.
        let _ = fs::remove_file(&path);
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
