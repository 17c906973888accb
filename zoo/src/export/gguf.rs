//! GGUF files: the writer, and models in it.

use super::names::Outgoing;
use super::{ExportOptions, Precision, io, settings, vocabulary};
use crate::import::gguf::header;
use crate::import::gguf::meta::Meta;
use crate::import::gguf::tables::Architecture;
use crate::import::{ImportError, Pretrained};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Blocks, Encoding, atomic, encoding, values};
use mobilis_runtime::graph::DType;
use mobilis_runtime::suggest::did_you_mean;
use std::io::{self as system, Write};
use std::path::Path;

/// Values start at a multiple of this many bytes.
const ALIGNMENT: u64 = 32;

/// Writes a model. Gives back what could not be carried over, in words.
pub(super) fn export(model: &Pretrained, to: &Path, options: &ExportOptions) -> Result<Vec<String>, ImportError> {
    let model_type = model.config.get("model_type").and_then(|v| v.as_str()).unwrap_or_default();
    let architecture = Architecture::of_model_type(model_type).ok_or_else(|| {
        let known = "llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma2 gemma3_text phi3 gpt2 deepseek_v2 deepseek_v3 mamba mamba2 bert t5";
        let known: Vec<&str> = known.split(' ').collect();
        ImportError::Export(format!("models of type `{model_type}` are not written as GGUF files{}", did_you_mean(model_type, &known)))
    })?;
    let settings = settings::settings(&model.config, architecture)?;
    let mut tensors = Outgoing::new(&*model.tensors, architecture, settings.sizes)?;
    for (name, factors) in settings.factors {
        tensors.add(name, factors);
    }
    let mut notes = Vec::new();
    let mut metadata = vec![
        ("general.architecture".to_string(), Meta::Text(architecture.name().into())),
        ("general.type".to_string(), Meta::Text("model".into())),
        ("general.quantization_version".to_string(), Meta::Count(2)),
        ("general.file_type".to_string(), Meta::Count(file_type(options.precision, &tensors))),
    ];
    metadata.extend(settings.metadata);
    metadata.extend(vocabulary::metadata(model, &mut notes));
    let encodings = |name: &str, stored: Encoding, sizes: &[usize]| chosen(name, stored, sizes, options.precision);
    atomic::replace(to, |out| write(out, &metadata, &tensors, encodings)).map_err(io("write", to))?;
    Ok(notes)
}

/// llama.cpp's number for what most matrices are.
fn file_type(precision: Precision, tensors: &dyn Source) -> u64 {
    let most = || {
        let matrices = tensors.names().into_iter().filter_map(|n| tensors.info(n)).filter(|i| i.sizes.len() > 1);
        matrices.max_by_key(|i| i.count()).map(|i| i.encoding)
    };
    match precision.encoding().or_else(most) {
        Some(Encoding::F16) => 1,
        Some(Encoding::Blocks(Blocks::Q4_0)) => 2,
        Some(Encoding::Blocks(Blocks::Q4_1)) => 3,
        Some(Encoding::Blocks(Blocks::Q8_0)) => 7,
        Some(Encoding::BF16) => 32,
        _ => 0,
    }
}

/// How a tensor is stored: vectors and what routes or convolves in `F32`, as llama.cpp does.
fn chosen(name: &str, stored: Encoding, sizes: &[usize], precision: Precision) -> Encoding {
    if !encoding::is_real(stored) {
        return stored;
    }
    let small = sizes.len() < 2 || name.ends_with("norm.weight");
    let exact = ["ffn_gate_inp", "ssm_conv1d", "ssm_a", "ssm_d", "position_embd", "token_types", "attn_rel_b"];
    if small || exact.iter().any(|part| name.split('.').any(|p| p == *part)) {
        return Encoding::F32;
    }
    let wanted = match precision {
        // Head and embeddings lose most by four bits.
        Precision::Q4_0 if matches!(name, "output.weight" | "token_embd.weight") => Encoding::Blocks(Blocks::Q8_0),
        precision => precision.encoding().unwrap_or(stored),
    };
    match wanted {
        Encoding::Blocks(b) if !sizes.last().is_some_and(|n| n.is_multiple_of(b.values())) => Encoding::F16,
        Encoding::F64 => Encoding::F32,
        other if header::number(other).is_none() => Encoding::F32,
        other => other,
    }
}

/// Writes a file: `encodings` says how each tensor is stored, by its name, its own encoding and its sizes.
///
/// # Errors
/// Those of the stream; tensors that cannot be read.
pub fn write(
    out: &mut impl Write,
    metadata: &[(String, Meta)],
    tensors: &dyn Source,
    encodings: impl Fn(&str, Encoding, &[usize]) -> Encoding,
) -> system::Result<()> {
    let names = tensors.names();
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend((names.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut header, key);
        meta(&mut header, value);
    }
    let mut plan = Vec::with_capacity(names.len());
    let mut offset = 0u64;
    for name in names {
        let info = tensors.find(name).map_err(system::Error::other)?;
        let encoding = encodings(name, info.encoding, &info.sizes);
        let number = header::number(encoding)
            .ok_or_else(|| system::Error::other(format!("`{name}` cannot be stored as {encoding}")))?;
        let bytes = encoding
            .bytes_of(&info.sizes)
            .ok_or_else(|| system::Error::other(format!("`{name}` has no whole blocks")))?;
        text(&mut header, name);
        header.extend((info.sizes.len() as u32).to_le_bytes());
        info.sizes.iter().rev().for_each(|n| header.extend((*n as u64).to_le_bytes()));
        header.extend(number.to_le_bytes());
        header.extend(offset.to_le_bytes());
        plan.push((name, info.encoding, encoding, bytes));
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&header)?;
    for (name, stored, encoding, bytes) in plan {
        if stored == encoding {
            tensors.raw(name).map_err(system::Error::other)?.copy_to(out)?;
        } else {
            let data = tensors.read(name, DType::F32, false).map_err(system::Error::other)?;
            values::write(out, &data, encoding)?;
        }
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        out.write_all(&vec![0; padding as usize])?;
    }
    Ok(())
}

fn text(out: &mut Vec<u8>, v: &str) {
    out.extend((v.len() as u64).to_le_bytes());
    out.extend_from_slice(v.as_bytes());
}

fn meta(out: &mut Vec<u8>, value: &Meta) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let list = |kind: u32, count: usize, values: Vec<u8>| {
        [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), &values].concat()
    };
    match value {
        Meta::Count(v) => match u32::try_from(*v) {
            Ok(v) => put(4, &v.to_le_bytes()),
            Err(_) => put(10, &v.to_le_bytes()),
        },
        Meta::Int(v) => match i32::try_from(*v) {
            Ok(v) => put(5, &v.to_le_bytes()),
            Err(_) => put(11, &v.to_le_bytes()),
        },
        Meta::Float(v) => put(6, &(*v as f32).to_le_bytes()),
        Meta::Bool(v) => put(7, &[u8::from(*v)]),
        Meta::Text(v) => {
            put(8, &[]);
            text(out, v);
        }
        Meta::Bytes(v) => put(9, &list(0, v.len(), v.clone())),
        Meta::Bools(v) => put(9, &list(7, v.len(), v.iter().map(|b| u8::from(*b)).collect())),
        Meta::Floats(v) => put(9, &list(6, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())),
        Meta::Ints(v) => match v.iter().map(|v| i32::try_from(*v)).collect::<Result<Vec<_>, _>>() {
            Ok(v) => put(9, &list(5, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())),
            Err(_) => put(9, &list(11, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())),
        },
        Meta::Texts(v) => {
            let mut values = Vec::new();
            v.iter().for_each(|v| text(&mut values, v));
            put(9, &list(8, v.len(), values));
        }
    }
}
