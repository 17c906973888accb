//! Folders as `transformers` writes and reads them.

use super::{ExportOptions, Precision, io, vocabulary};
use crate::import::BESIDE;
use crate::import::{ImportError, Pretrained, TokenizerFiles};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Encoding, Writer, atomic, encoding};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Writes a folder. Gives back what could not be carried over, in words.
pub(super) fn export(model: &Pretrained, to: &Path, options: &ExportOptions) -> Result<Vec<String>, ImportError> {
    if let (Ok(a), Ok(b)) = (fs::canonicalize(&model.path), fs::canonicalize(to))
        && a == b
    {
        return Err(ImportError::Export(format!("`{}` is the model itself: give another folder", to.display())));
    }
    weights(&*model.tensors, to, options)?;
    let mut notes = Vec::new();
    match &model.tokenizer {
        TokenizerFiles::Folder(folder) => {
            for name in BESIDE {
                let from = folder.join(name);
                if from.is_file() {
                    copy(&from, &to.join(name))?;
                }
            }
        }
        TokenizerFiles::Gguf(metadata) => match metadata.vocabulary() {
            Ok(vocabulary) => {
                for (name, text) in vocabulary::files(vocabulary, &mut notes) {
                    write(&to.join(name), &text)?;
                }
            }
            Err(fault) => notes.push(fault),
        },
        // Under their names, so that the configuration's references hold.
        TokenizerFiles::Nemo { artifacts, .. } => {
            for name in artifacts.names() {
                write(&to.join(name), &artifacts.read(name)?)?;
            }
        }
    }
    if let Some(generation) = &model.generation_config {
        write(&to.join("generation_config.json"), pretty(generation).as_bytes())?;
    }
    // The configuration comes last: a folder that has one is whole.
    let mut config = model.config.clone();
    if let Some(object) = config.as_object_mut() {
        let newer = object.contains_key("dtype") && !object.contains_key("torch_dtype");
        let key = if newer { "dtype" } else { "torch_dtype" };
        object.insert(key.into(), torch_name(&*model.tensors, options).into());
    }
    write(&to.join("config.json"), pretty(&config).as_bytes())?;
    Ok(notes)
}

/// Writes the weights alone: one file or a folder's.
pub(super) fn weights(source: &dyn Source, to: &Path, options: &ExportOptions) -> Result<(), ImportError> {
    if matches!(options.precision, Precision::Q8_0 | Precision::Q4_0) {
        let name = options.precision.name();
        return Err(ImportError::Export(format!(
            "safetensors files have no {name}: give f32, f16 or bf16, or a path that ends in `.gguf`"
        )));
    }
    let mut writer = Writer::new().metadata("format", "pt").shard_bytes(options.shard_bytes);
    for name in source.names() {
        let stored = source.find(name)?.encoding;
        writer = writer.add_from(source, name, chosen(stored, options.precision))?;
    }
    Ok(writer.save(to)?)
}

/// How a tensor is written.
pub(super) fn chosen(stored: Encoding, precision: Precision) -> Encoding {
    let real = encoding::is_real(stored);
    match (precision.encoding(), stored) {
        (Some(wanted), _) if real => wanted,
        (None, Encoding::Blocks(_)) => Encoding::F32,
        _ => stored,
    }
}

/// What `transformers` calls the type of most values.
fn torch_name(source: &dyn Source, options: &ExportOptions) -> &'static str {
    let mut counts: Vec<(Encoding, usize)> = Vec::new();
    for info in source.names().into_iter().filter_map(|n| source.info(n)) {
        let encoding = chosen(info.encoding, options.precision);
        match counts.iter_mut().find(|(e, _)| *e == encoding) {
            Some((_, count)) => *count += info.count(),
            None => counts.push((encoding, info.count())),
        }
    }
    match counts.into_iter().max_by_key(|(_, count)| *count) {
        Some((Encoding::F16, _)) => "float16",
        Some((Encoding::BF16, _)) => "bfloat16",
        Some((Encoding::F64, _)) => "float64",
        _ => "float32",
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    use std::io::Write;
    atomic::replace(path, |out| out.write_all(bytes)).map_err(io("write", path))
}

fn copy(from: &Path, to: &Path) -> Result<(), ImportError> {
    let mut source = fs::File::open(from).map_err(io("read", from))?;
    atomic::replace(to, |out| std::io::copy(&mut source, out).map(drop)).map_err(io("write", to))
}
