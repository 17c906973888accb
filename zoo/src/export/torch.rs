//! Writes checkpoints as `torch.save` does: an archive without compression, with a pickle that
//! `torch.load(weights_only=True)` reads.
//!
//! The pickle is an `OrderedDict` from names to calls of `torch._utils._rebuild_tensor_v2`, each with the
//! persistent id of a storage of its own; the storages are the entries `NAME/data/0`, `1`, .. of the archive.
//! Tensors go to the file one by one.

use super::Precision;
use super::folder::chosen;
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{Encoding, TensorInfo, values};
use mobilis_runtime::graph::DType;
use std::io::{self, Seek, Write};
use zip::write::{SimpleFileOptions, ZipWriter};

/// What stands before every entry's name: the file's own name, in PyTorch's files.
const FOLDER: &str = "model_weights";

/// Writes all tensors of a source.
///
/// # Errors
/// Those of the stream; tensors that cannot be read, or are stored as PyTorch's files have no name for.
pub(super) fn write(out: impl Write + Seek, source: &dyn Source, precision: Precision) -> io::Result<()> {
    let mut zip = ZipWriter::new(out);
    let options = |bytes: u64| {
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        stored.large_file(bytes >= u64::from(u32::MAX)).with_alignment(64)
    };
    let mut entry = |name: &str, bytes: u64, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>| {
        zip.start_file(format!("{FOLDER}/{name}"), options(bytes)).map_err(io::Error::other)?;
        write(&mut zip)
    };
    let mut plan = Vec::new();
    for name in source.names() {
        let info = source.find(name).map_err(io::Error::other)?;
        let encoding = chosen(info.encoding, precision);
        plan.push((name, info, encoding));
    }
    let pickle = pickle(&plan)?;
    entry("data.pkl", pickle.len() as u64, &mut |out| out.write_all(&pickle))?;
    entry("byteorder", 6, &mut |out| out.write_all(b"little"))?;
    for (i, (name, info, encoding)) in plan.iter().enumerate() {
        let bytes = encoding.bytes_of(&info.sizes).unwrap_or(0);
        entry(&format!("data/{i}"), bytes, &mut |mut out| {
            if *encoding == info.encoding {
                return source.raw(name).map_err(io::Error::other)?.copy_to(&mut out);
            }
            let data = source.read(name, DType::F32, false).map_err(io::Error::other)?;
            values::write(&mut out, &data, *encoding)
        })?;
    }
    entry("version", 2, &mut |out| out.write_all(b"3\n"))?;
    zip.finish().map_err(io::Error::other)?;
    Ok(())
}

/// The name of a storage's class.
fn storage(encoding: Encoding) -> Option<&'static str> {
    Some(match encoding {
        Encoding::F64 => "DoubleStorage",
        Encoding::F32 => "FloatStorage",
        Encoding::F16 => "HalfStorage",
        Encoding::BF16 => "BFloat16Storage",
        Encoding::I64 => "LongStorage",
        Encoding::I32 => "IntStorage",
        Encoding::I16 => "ShortStorage",
        Encoding::I8 => "CharStorage",
        Encoding::U8 => "ByteStorage",
        Encoding::Bool => "BoolStorage",
        _ => return None,
    })
}

/// Protocol 2, in the order in which Python's own pickler writes it, without its memo.
fn pickle(plan: &[(&str, TensorInfo, Encoding)]) -> io::Result<Vec<u8>> {
    let mut out = vec![0x80, 2];
    let global = |out: &mut Vec<u8>, module: &str, name: &str| {
        out.extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
    };
    let ordered = |out: &mut Vec<u8>| {
        global(out, "collections", "OrderedDict");
        out.extend_from_slice(b")R");
    };
    ordered(&mut out);
    out.push(b'(');
    for (i, (name, info, encoding)) in plan.iter().enumerate() {
        let class = storage(*encoding).ok_or_else(|| {
            io::Error::other(format!("`{name}` is stored as {encoding}, which PyTorch's files do not have: give f32"))
        })?;
        text(&mut out, name);
        global(&mut out, "torch._utils", "_rebuild_tensor_v2");
        out.extend_from_slice(b"((");
        text(&mut out, "storage");
        global(&mut out, "torch", class);
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        int(&mut out, info.count() as u64);
        out.extend_from_slice(b"tQ");
        int(&mut out, 0);
        let mut strides = vec![1u64; info.sizes.len()];
        for d in (1..info.sizes.len()).rev() {
            strides[d - 1] = strides[d] * info.sizes[d].max(1) as u64;
        }
        for list in [info.sizes.iter().map(|n| *n as u64).collect(), strides] {
            out.push(b'(');
            list.into_iter().for_each(|n| int(&mut out, n));
            out.push(b't');
        }
        out.push(0x89);
        ordered(&mut out);
        out.extend_from_slice(b"tR");
    }
    out.extend_from_slice(b"u.");
    Ok(out)
}

fn text(out: &mut Vec<u8>, v: &str) {
    out.push(b'X');
    out.extend_from_slice(&(v.len() as u32).to_le_bytes());
    out.extend_from_slice(v.as_bytes());
}

fn int(out: &mut Vec<u8>, v: u64) {
    match i32::try_from(v) {
        Ok(v) => {
            out.push(b'J');
            out.extend_from_slice(&v.to_le_bytes());
        }
        // Nine bytes, so that the highest is no sign.
        Err(_) => {
            out.extend_from_slice(&[0x8a, 9]);
            out.extend_from_slice(&v.to_le_bytes());
            out.push(0);
        }
    }
}
