//! Writing checkpoints: equal tensors give equal bytes, whatever the order they are added in.
//!
//! Within a file, tensors stand by descending width of their values and then by name, as the
//! reference implementation writes them: every tensor is then aligned to its own width.

use super::Source;
use super::atomic::{self, Pending};
use super::directory::{INDEX, SINGLE, stale};
use super::encoding::{Encoding, is_real};
use super::error::CheckpointError;
use super::values;
use crate::graph::DType;
use crate::json::Json;
use crate::module::encoded::Encoding as Kept;
use crate::module::store::Data;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Values of a part, unless told otherwise: 5 GB, as on Hugging Face's hub.
pub const SHARD_BYTES: u64 = 5_000_000_000;

#[derive(Clone)]
struct Item<'a> {
    encoding: Encoding,
    sizes: Vec<usize>,
    values: Values<'a>,
}

/// Where an item's values are until they are written.
#[derive(Clone, Copy)]
enum Values<'a> {
    Data(&'a Data),
    /// In a source, under the same name.
    Source(&'a dyn Source),
}

impl Item<'_> {
    fn bytes(&self) -> u64 {
        // Sizes were checked when it was added.
        self.encoding.bytes_of(&self.sizes).unwrap_or(0)
    }

    fn write(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        match self.values {
            Values::Data(data) => values::write(out, data, self.encoding),
            Values::Source(source) => {
                let stored = source.find(name).map_err(io::Error::other)?.encoding;
                if stored == self.encoding {
                    return source.raw(name).map_err(io::Error::other)?.copy_to(out);
                }
                let data = source.read(name, DType::F32, stored == Encoding::F64).map_err(io::Error::other)?;
                values::write(out, &data, self.encoding)
            }
        }
    }
}

/// Collects tensors and writes them.
///
/// ```
/// use mobilis_runtime::checkpoint::{Checkpoint, Writer};
/// use mobilis_runtime::module::store::Data;
/// # let path = std::env::temp_dir().join(format!("mobilis-doc-{}.safetensors", std::process::id()));
/// let weight = Data::F32(vec![1.0, 2.0, 3.0, 4.0]);
/// Writer::new().add("weight", &[2, 2], &weight)?.save(&path)?;
/// assert_eq!(Checkpoint::open(&path)?.get("weight").map(|t| t.count()), Some(4));
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), mobilis_runtime::checkpoint::CheckpointError>(())
/// ```
#[derive(Clone)]
pub struct Writer<'a> {
    items: BTreeMap<String, Item<'a>>,
    metadata: BTreeMap<String, String>,
    shard_bytes: u64,
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Writer { items: BTreeMap::new(), metadata: BTreeMap::new(), shard_bytes: SHARD_BYTES }
    }
}

impl<'a> Writer<'a> {
    /// No tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor in the encoding that holds its values exactly; blocks of a GGUF file become `F32`.
    ///
    /// # Errors
    /// A name that is taken; values that do not fill the sizes.
    pub fn add(self, name: &str, sizes: &[usize], data: &'a Data) -> Result<Self, CheckpointError> {
        let encoding = match data {
            Data::F32(_) => Encoding::F32,
            Data::F64(_) => Encoding::F64,
            Data::I32(_) => Encoding::I32,
            Data::Bool(_) => Encoding::Bool,
            Data::Encoded(v) => match v.encoding() {
                Kept::F16 => Encoding::F16,
                Kept::Bf16 => Encoding::BF16,
                Kept::Blocks(_) => Encoding::F32,
            },
        };
        self.add_as(name, sizes, data, encoding)
    }

    /// Adds a tensor in a given encoding; reals are rounded to it.
    ///
    /// # Errors
    /// Those of [`add`](Self::add), and an encoding of another kind of number.
    pub fn add_as(
        self,
        name: &str,
        sizes: &[usize],
        data: &'a Data,
        encoding: Encoding,
    ) -> Result<Self, CheckpointError> {
        let fault = |fault: String| Err(CheckpointError::Unwritable { tensor: name.into(), fault });
        let count = sizes.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        if count != Some(data.len()) {
            return fault(format!("{} values do not fill sizes {sizes:?}", data.len()));
        }
        if !values::fits(data, encoding) || matches!(encoding, Encoding::Blocks(_)) {
            return fault(format!("{} values are not written as {encoding}", data.dtype()));
        }
        self.insert(name, Item { encoding, sizes: sizes.to_vec(), values: Values::Data(data) })
    }

    /// Adds a tensor of a source, under its name. Its values are read when they are written, and one
    /// tensor at a time: as they are stored where `encoding` is the source's, else rounded to it.
    ///
    /// # Errors
    /// Those of [`add_as`](Self::add_as); no such tensor; an encoding that the format does not have.
    pub fn add_from(self, source: &'a dyn Source, name: &str, encoding: Encoding) -> Result<Self, CheckpointError> {
        let fault = |fault: String| Err(CheckpointError::Unwritable { tensor: name.into(), fault });
        let info = source.find(name)?;
        let written = matches!(encoding, Encoding::F32 | Encoding::F64 | Encoding::F16 | Encoding::BF16);
        if matches!(encoding, Encoding::Blocks(_))
            || (info.encoding != encoding && !(written && is_real(info.encoding)))
        {
            return fault(format!("values stored as {} are not written as {encoding}", info.encoding));
        }
        if encoding.bytes_of(&info.sizes).is_none() {
            return fault(format!("sizes {:?} are not whole bytes of {encoding}", info.sizes));
        }
        self.insert(name, Item { encoding, sizes: info.sizes, values: Values::Source(source) })
    }

    fn insert(mut self, name: &str, item: Item<'a>) -> Result<Self, CheckpointError> {
        let fault = |fault: &str| Err(CheckpointError::Unwritable { tensor: name.into(), fault: fault.into() });
        if name == "__metadata__" {
            return fault("the format reserves this name");
        }
        if self.items.insert(name.into(), item).is_some() {
            return fault("there is another tensor of this name");
        }
        Ok(self)
    }

    /// Adds an entry to `__metadata__`.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Splits the checkpoint into parts of at most so many bytes of values; a larger tensor has a
    /// part of its own.
    #[must_use]
    pub fn shard_bytes(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// Writes the checkpoint, whole or not at all: a failure leaves what was there before.
    ///
    /// A path that ends in `.safetensors` means one file of any size. Every other path means a
    /// directory, which is made if need be, with `model.safetensors` in it, or parts and an index
    /// above the limit; files of an earlier checkpoint in it that this one replaces are removed.
    ///
    /// # Errors
    /// Those of the system, with the file that could not be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        let path = path.as_ref();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let all: Vec<&str> = self.items.keys().map(String::as_str).collect();
            return commit(vec![self.pending(path, &all)?]);
        }
        std::fs::create_dir_all(path).map_err(|e| failed("make the directory", path, e))?;
        let parts = self.split();
        // What an earlier checkpoint leaves over is removed when the new one is there.
        let old = stale(path);
        let mut files = Vec::new();
        let mut index = BTreeMap::new();
        for (i, part) in parts.iter().enumerate() {
            let name = match parts.len() {
                1 => SINGLE.to_string(),
                n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
            };
            files.push(self.pending(&path.join(&name), part)?);
            index.extend(part.iter().map(|tensor| (tensor.to_string(), name.clone())));
        }
        if parts.len() > 1 {
            let total: u64 = self.items.values().map(Item::bytes).sum();
            let text = index_text(&index, total);
            let target = path.join(INDEX);
            let written = Pending::write(&target, |out| out.write_all(text.as_bytes()));
            files.push(written.map_err(|e| failed("write", &target, e))?);
        }
        let new: BTreeSet<PathBuf> = files.iter().map(|f| f.target().to_path_buf()).collect();
        commit(files)?;
        for file in old.into_iter().filter(|f| !new.contains(f)) {
            std::fs::remove_file(&file).map_err(|e| failed("remove the replaced file", &file, e))?;
        }
        Ok(())
    }

    /// Writes one file with the tensors to a stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let all: Vec<&str> = self.items.keys().map(String::as_str).collect();
        self.write_part(out, &all)
    }

    fn pending(&self, target: &Path, names: &[&str]) -> Result<Pending, CheckpointError> {
        Pending::write(target, |out| self.write_part(out, names)).map_err(|e| failed("write", target, e))
    }

    /// Names by part: in order of name, as many as fit.
    fn split(&self) -> Vec<Vec<&str>> {
        let mut parts: Vec<Vec<&str>> = vec![Vec::new()];
        let mut filled = 0;
        for (name, item) in &self.items {
            let last = parts.len() - 1;
            if !parts[last].is_empty() && filled + item.bytes() > self.shard_bytes {
                parts.push(vec![name]);
                filled = item.bytes();
            } else {
                parts[last].push(name);
                filled += item.bytes();
            }
        }
        parts
    }

    fn write_part(&self, out: &mut impl Write, names: &[&str]) -> io::Result<()> {
        let mut items: Vec<(&str, &Item)> = names.iter().map(|n| (*n, &self.items[*n])).collect();
        items.sort_by(|(a_name, a), (b_name, b)| b.encoding.cmp(&a.encoding).then(a_name.cmp(b_name)));
        let header = self.header(&items);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        for (name, item) in items {
            item.write(name, out)?;
        }
        Ok(())
    }

    /// The header's text, padded with spaces so that values start at a multiple of eight.
    fn header(&self, items: &[(&str, &Item)]) -> String {
        let quoted = |text: &str| Json::from(text).to_string();
        let mut fields = Vec::with_capacity(items.len() + 1);
        if !self.metadata.is_empty() {
            let pairs: Vec<String> =
                self.metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
            fields.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
        }
        let mut at = 0;
        for (name, item) in items {
            let end = at + item.bytes();
            let shape: Vec<String> = item.sizes.iter().map(usize::to_string).collect();
            let (name, shape) = (quoted(name), shape.join(","));
            let dtype = item.encoding.name();
            fields.push(format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{at},{end}]}}"));
            at = end;
        }
        let mut text = format!("{{{}}}", fields.join(","));
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        text
    }
}

fn index_text(index: &BTreeMap<String, String>, total: u64) -> String {
    let map = Json::map(index.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    let value = Json::map([("metadata", Json::map([("total_size", total)])), ("weight_map", map)]);
    format!("{value:#}\n")
}

fn commit(files: Vec<Pending>) -> Result<(), CheckpointError> {
    atomic::commit(files).map_err(|(path, e)| failed("write", &path, e))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { action, path: path.to_path_buf(), source }
}
