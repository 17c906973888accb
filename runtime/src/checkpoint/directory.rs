//! Checkpoints of one file, and of several with an index.

use super::error::{CheckpointError, HeaderError};
use super::header::{self, Fault, Header};
use super::{Checkpoint, Part, Stored};
use crate::json::Json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

/// The name of a checkpoint's only file in a directory.
pub(super) const SINGLE: &str = "model.safetensors";
/// The name of the index of parts.
pub(super) const INDEX: &str = "model.safetensors.index.json";

pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let found = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::NotFound { path: path.into(), hint: neighbours(path) },
        _ => failed(path)(e),
    })?;
    if found.is_dir() {
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        return match (single.is_file(), index.is_file()) {
            (true, _) => open_single(path, &single),
            (false, true) => open_sharded(path, &index),
            (false, false) => Err(CheckpointError::NotFound { path: single, hint: contents(path) }),
        };
    }
    match path.extension() {
        Some(e) if e == "json" => open_sharded(path, path),
        _ => open_single(path, path),
    }
}

fn open_single(path: &Path, file: &Path) -> Result<Checkpoint, CheckpointError> {
    let mut checkpoint = Checkpoint { path: path.into(), parts: Vec::new(), tensors: BTreeMap::new() };
    add_part(&mut checkpoint, file)?;
    Ok(checkpoint)
}

/// Adds a part's tensors; gives back their names.
fn add_part(checkpoint: &mut Checkpoint, file: &Path) -> Result<Vec<String>, CheckpointError> {
    let Header { tensors, metadata, values_at } = read_header(file)?;
    let part = checkpoint.parts.len();
    checkpoint.parts.push(Part { path: file.into(), values_at, metadata });
    let mut names = Vec::with_capacity(tensors.len());
    for t in tensors {
        let stored = Stored { encoding: t.encoding, sizes: t.sizes, begin: t.begin, end: t.end, part };
        names.push(t.name.clone());
        if checkpoint.tensors.insert(t.name.clone(), stored).is_some() {
            let source = HeaderError::Duplicate { tensor: t.name };
            return Err(CheckpointError::Header { path: file.into(), source });
        }
    }
    Ok(names)
}

fn read_header(path: &Path) -> Result<Header, CheckpointError> {
    let file = File::open(path).map_err(failed(path))?;
    let length = file.metadata().map_err(failed(path))?.len();
    header::read(&mut BufReader::new(file), length).map_err(|fault| match fault {
        Fault::Header(source) => CheckpointError::Header { path: path.into(), source },
        Fault::Io(source) => failed(path)(source),
    })
}

fn open_sharded(path: &Path, index: &Path) -> Result<Checkpoint, CheckpointError> {
    let fault = |fault: String| CheckpointError::Index { path: index.into(), fault };
    let map = read_index(index)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let files: BTreeSet<&String> = map.values().collect();
    let mut checkpoint = Checkpoint { path: path.into(), parts: Vec::new(), tensors: BTreeMap::new() };
    for file in files {
        let at = folder.join(file);
        if !at.is_file() {
            return Err(fault(format!("the part `{file}` is missing: copy or download it too")));
        }
        for name in add_part(&mut checkpoint, &at)? {
            match map.get(&name) {
                Some(f) if f == file => {}
                Some(f) => return Err(fault(format!("tensor `{name}` is said to be in `{f}`, but is in `{file}`"))),
                None => return Err(fault(format!("tensor `{name}` of `{file}` is not listed"))),
            }
        }
    }
    match map.iter().find(|(name, _)| !checkpoint.tensors.contains_key(*name)) {
        Some((name, file)) => Err(fault(format!("tensor `{name}` is said to be in `{file}`, but is not"))),
        None => Ok(checkpoint),
    }
}

/// The part that holds each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let fault = |fault: String| CheckpointError::Index { path: path.into(), fault };
    let length = fs::metadata(path).map_err(failed(path))?.len();
    if length > header::LONGEST {
        return Err(fault(format!("it has {length} bytes, but at most {} are allowed", header::LONGEST)));
    }
    let bytes = fs::read(path).map_err(failed(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| fault(format!("it is no UTF-8 text: {e}")))?;
    let json = Json::parse(text).map_err(|e| fault(format!("it is no JSON: {e}")))?;
    let Json::Map(fields) = json else {
        return Err(fault(format!("it is {}, not an object", json.kind())));
    };
    let mut map = None;
    for (key, value) in fields {
        match (key.as_str(), value) {
            // Totals, which the parts tell better.
            ("metadata", Json::Map(_)) => {}
            ("weight_map", Json::Map(entries)) if map.is_none() => map = Some(entries),
            ("weight_map", Json::Map(_)) => return Err(fault("`weight_map` stands there twice".into())),
            (key @ ("metadata" | "weight_map"), value) => {
                return Err(fault(format!("`{key}` is {}, not an object", value.kind())));
            }
            (key, _) => {
                let hint = crate::suggest::did_you_mean(key, &["metadata", "weight_map"]);
                return Err(fault(format!("it has the unknown key `{key}`{hint}")));
            }
        }
    }
    let entries = map.ok_or_else(|| fault("`weight_map` is missing".into()))?;
    let mut out = BTreeMap::new();
    for (name, file) in entries {
        let Json::Text(file) = file else {
            return Err(fault(format!("the part of tensor `{name}` is {}, not text", file.kind())));
        };
        // A name such as `../secret` must not lead out of the checkpoint.
        let mut parts = Path::new(&file).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(fault(format!(
                "the part `{file}` of tensor `{name}` is not the name of a file beside the index"
            )));
        }
        if out.insert(name.clone(), file).is_some() {
            return Err(fault(format!("tensor `{name}` is listed twice")));
        }
    }
    Ok(out)
}

/// The files of the checkpoint in a directory, which a new one replaces. A faulty index names no
/// files that would be safe to remove.
pub(super) fn stale(folder: &Path) -> Vec<PathBuf> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    let mut files = Vec::new();
    if single.is_file() {
        files.push(single);
    }
    if index.is_file() {
        if let Ok(map) = read_index(&index) {
            let parts: BTreeSet<PathBuf> = map.values().map(|f| folder.join(f)).filter(|f| f.is_file()).collect();
            files.extend(parts);
        }
        files.push(index);
    }
    files
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { action: "read", path: path.into(), source }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What lies beside a path that does not exist and has a name like it.
fn neighbours(path: &Path) -> String {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return format!(": the directory `{}` does not exist", folder.display());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    crate::suggest::did_you_mean(&name, &names_in(folder))
}

/// What a directory without a checkpoint of the usual name holds instead.
fn contents(folder: &Path) -> String {
    let mut files = names_in(folder);
    files.retain(|f| f.ends_with(".safetensors"));
    match &files[..] {
        [] => format!(", nor `{INDEX}` beside it"),
        files => format!("; the directory holds `{}`: give its path", files.join("`, `")),
    }
}
