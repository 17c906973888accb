//! PyTorch's checkpoints: `.bin`, `.pt`, `.pth`, as `torch.save` writes them.
//!
//! Two forms. Since 1.6 a ZIP archive without compression: `NAME/data.pkl` and one entry `NAME/data/KEY` a
//! storage. Before that, five things one after the other: three pickles that say what it is, the pickle, the
//! list of its storages, and each storage with its length before it. In both, the pickle says which view of
//! which storage each tensor is ([`pickle`]); the storages are read where they lie.
//!
//! What is saved is often more than a model: an optimiser's state beside it, a number of steps. Names are the
//! keys on the way to a tensor, joined by dots, from the innermost of the usual wrappers on (`state_dict`,
//! `model`, ...).

pub mod pickle;
mod window;

use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Encoding, Raw, TensorInfo};
use pickle::{Arena, Id, Known, Pickle, TensorRef, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use window::Window;

/// The number that a file of the older form starts with: 2 + 12 bytes of a pickle.
const MAGIC: &[u8] = &[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
/// No checkpoint has more tensors, nor keys that lead nowhere.
const MOST: usize = 1 << 20;
/// No checkpoint nests its tensors deeper.
const DEEPEST: usize = 32;
/// Keys under which a model stands beside other things.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model_state", "model", "module", "net"];

/// An opened checkpoint of PyTorch's: its pickle is read, values are read on demand.
#[derive(Clone, Debug)]
pub struct TorchFile {
    path: PathBuf,
    /// Where in the file it begins: a checkpoint may lie within an archive.
    begin: u64,
    /// The file's bytes, where they are in memory.
    memory: Option<Arc<[u8]>>,
    tensors: BTreeMap<String, View>,
}

/// A view of a storage.
#[derive(Clone, Debug)]
struct View {
    info: TensorInfo,
    /// Where the storage lies in the file.
    storage: Span,
    /// In elements.
    offset: u64,
    /// In elements; none where they are those of a tensor without gaps.
    strides: Option<Vec<u64>>,
}

/// Bytes of the file.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    len: u64,
}

impl TorchFile {
    /// Opens a file of either form.
    ///
    /// # Errors
    /// Every fault of the archive and the pickle; names that a checkpoint of tensors does not need.
    pub fn open(path: impl AsRef<Path>) -> Result<TorchFile, CheckpointError> {
        let path = path.as_ref();
        let length = std::fs::metadata(path).map_err(failed(path))?.len();
        TorchFile::within(path, 0, length)
    }

    /// Opens a checkpoint that lies within a file.
    ///
    /// # Errors
    /// As for [`TorchFile::open`].
    pub fn within(path: &Path, begin: u64, len: u64) -> Result<TorchFile, CheckpointError> {
        let file = File::open(path).map_err(failed(path))?;
        let mut window = Window::new(file, begin, len).map_err(failed(path))?;
        let tensors = read(&mut window, len).map_err(said(path))?;
        Ok(TorchFile { path: path.into(), begin, memory: None, tensors })
    }

    /// Opens a checkpoint that lies within bytes in memory. The path is for messages.
    ///
    /// # Errors
    /// As for [`TorchFile::open`].
    pub fn in_memory(path: &Path, bytes: Arc<[u8]>, begin: u64, len: u64) -> Result<TorchFile, CheckpointError> {
        let mut window = Window::new(Cursor::new(&bytes[..]), begin, len).map_err(failed(path))?;
        let tensors = read(&mut window, len).map_err(said(path))?;
        Ok(TorchFile { path: path.into(), begin, memory: Some(bytes), tensors })
    }

    /// Bytes of the checkpoint.
    fn bytes(&self, begin: u64, len: u64) -> Result<Raw, CheckpointError> {
        let begin = self.begin + begin;
        let Some(bytes) = &self.memory else { return Ok(Raw::File { path: self.path.clone(), begin, len }) };
        let part = usize::try_from(begin).ok().and_then(|b| bytes.get(b..)).and_then(|rest| rest.get(..len as usize));
        // Spans were checked when the checkpoint was opened, unless its archive lied about an entry's place.
        let ends = || failed(&self.path)(std::io::ErrorKind::UnexpectedEof.into());
        Ok(Raw::Bytes(part.ok_or_else(ends)?.to_vec()))
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { action: "read", path: path.into(), source }
}

fn said(path: &Path) -> impl Fn(Fault) -> CheckpointError + '_ {
    move |fault| match fault {
        Fault::Io(source) => failed(path)(source),
        Fault::Format(fault) => CheckpointError::Format { path: path.into(), format: "PyTorch checkpoint", fault },
    }
}

/// What the system or the file does wrong.
#[derive(Debug)]
pub enum Fault {
    /// The file is faulty.
    Format(String),
    /// The system refuses.
    Io(std::io::Error),
}

impl From<String> for Fault {
    fn from(fault: String) -> Fault {
        Fault::Format(fault)
    }
}

impl From<&str> for Fault {
    fn from(fault: &str) -> Fault {
        Fault::Format(fault.into())
    }
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Fault {
        Fault::Io(e)
    }
}

/// Names and shapes of a file of either form, for tests and fuzzing.
///
/// # Errors
/// Those of [`TorchFile::open`].
pub fn check(file: impl Read + Seek, length: u64) -> Result<usize, Fault> {
    let mut file = file;
    read(&mut file, length).map(|t| t.len())
}

fn read(file: &mut (impl Read + Seek), length: u64) -> Result<BTreeMap<String, View>, Fault> {
    let mut start = [0; MAGIC.len()];
    let known = usize::try_from(length).map_or(start.len(), |n| n.min(start.len()));
    let known = &mut start[..known];
    file.read_exact(known)?;
    if known.starts_with(b"PK") {
        return zipped(file);
    }
    if known == MAGIC {
        return legacy(file, length);
    }
    let hint = match known {
        [0x80, ..] => "; it is a pickle, but not one of `torch.save`'s",
        _ => "",
    };
    Err(format!(
        "it starts with {:02x?}, neither with `PK` as archives do nor with the older form's number{hint}",
        &known[..known.len().min(4)]
    )
    .into())
}

/// An archive with `NAME/data.pkl` and `NAME/data/KEY`.
fn zipped(file: &mut (impl Read + Seek)) -> Result<BTreeMap<String, View>, Fault> {
    file.seek(SeekFrom::Start(0))?;
    let broken = |e: zip::result::ZipError| Fault::Format(format!("its archive is damaged: {e}"));
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut storages: HashMap<String, Span> = HashMap::new();
    let mut found = None;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let inner = name.split_once('/').map_or(name.as_str(), |(_, inner)| inner);
        if inner != "data.pkl" && inner.strip_prefix("data/").is_none() {
            continue;
        }
        if entry.compression() != zip::CompressionMethod::Stored || entry.size() != entry.compressed_size() {
            return Err(format!("its entry `{name}` is compressed, which `torch.save` never does").into());
        }
        if let Some(key) = inner.strip_prefix("data/") {
            let begin = entry.data_start().ok_or_else(|| format!("its entry `{name}` lies nowhere"))?;
            storages.insert(key.to_string(), Span { begin, len: entry.size() });
        } else if found.replace(i).is_some() {
            return Err("its archive holds two pickles".into());
        }
    }
    let index = found.ok_or("its archive holds no `data.pkl`: it is something else, or a TorchScript model")?;
    let entry = archive.by_index(index).map_err(broken)?;
    if entry.size() > pickle::LONGEST {
        return Err(format!("its pickle has {} bytes, which is more than is believed", entry.size()).into());
    }
    let mut bytes = Vec::new();
    entry.take(pickle::LONGEST).read_to_end(&mut bytes)?;
    let pickle = pickle::read(&bytes)?;
    views(&pickle, |key| storages.get(key).copied())
}

/// The older form.
fn legacy(file: &mut (impl Read + Seek), length: u64) -> Result<BTreeMap<String, View>, Fault> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(pickle::LONGEST).read_to_end(&mut bytes)?;
    let mut at = MAGIC.len();
    let mut next = || -> Result<Pickle, String> {
        let pickle = pickle::read(&bytes[at..])?;
        at += pickle.len;
        Ok(pickle)
    };
    let version = next()?;
    if version.arena.count(version.root) != Some(1001) {
        return Err("its version is not 1001, the only one of the older form".into());
    }
    let system = next()?;
    if entry(&system.arena, system.root, "little_endian").is_some_and(|id| *system.arena.get(id) == Value::Bool(false))
    {
        return Err("it is big-endian, which is not read".into());
    }
    let (pickle, keys) = (next()?, next()?);
    // Each storage is its number of elements and then its bytes, in the order of the list.
    let widths = widths(&pickle.arena);
    let Value::List(keys_of) = keys.arena.get(keys.root) else {
        return Err("its list of storages is no list".into());
    };
    let mut storages: HashMap<String, Span> = HashMap::new();
    let mut begin = at as u64;
    for key in keys_of {
        let key = keys.arena.text(*key).ok_or("a storage has no name")?;
        let width = *widths.get(key).ok_or_else(|| format!("storage `{key}` belongs to no tensor"))?;
        if begin.checked_add(8).is_none_or(|end| end > length) {
            return Err(format!("it ends before storage `{key}`: it was cut off").into());
        }
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut count)?;
        let count = u64::from_le_bytes(count);
        begin += 8;
        let len = count.checked_mul(width).filter(|len| *len <= length - begin);
        let len =
            len.ok_or_else(|| format!("storage `{key}` of {count} values reaches beyond the end: it was cut off"))?;
        storages.insert(key.to_string(), Span { begin, len });
        begin += len;
    }
    views(&pickle, |key| storages.get(key).copied())
}

/// A dictionary's value for a text.
fn entry(arena: &Arena, dict: Id, key: &str) -> Option<Id> {
    let Value::Dict(entries) = arena.get(dict) else { return None };
    entries.iter().rev().find(|(k, _)| arena.text(*k) == Some(key)).map(|(_, v)| *v)
}

/// A storage by its persistent id: `("storage", type, key, device, count, ..)`.
fn storage(arena: &Arena, id: Id) -> Result<(&str, Option<&'static str>), String> {
    if let Value::Tuple(parts) = arena.get(id)
        && let [kind, of, key, ..] = parts[..]
        && arena.text(kind) == Some("storage")
        && let Value::Global(Known::Storage(dtype)) = arena.get(of)
        && let Some(key) = arena.text(key)
    {
        // The older form could name a view of a storage, which nothing writes any more.
        if parts.get(5).is_some_and(|view| *arena.get(*view) != Value::None) {
            return Err("a storage is a view of another one, which is not read".into());
        }
        return Ok((key, *dtype));
    }
    Err("a persistent id is no storage".into())
}

fn encoding(dtype: Option<&str>) -> Result<Encoding, String> {
    dtype.and_then(Encoding::parse).ok_or_else(|| "a tensor has no type that is known".into())
}

/// The width of the elements of each storage.
fn widths(arena: &Arena) -> HashMap<String, u64> {
    let mut widths = HashMap::new();
    for value in arena.values() {
        if let Value::Storage(id) = value
            && let Ok((key, dtype)) = storage(arena, *id)
        {
            let width = dtype.and_then(Encoding::parse).map_or(1, |e| e.block().1);
            widths.insert(key.to_string(), width);
        }
    }
    widths
}

/// The tensors of the model in a pickle.
fn views(pickle: &Pickle, spans: impl Fn(&str) -> Option<Span>) -> Result<BTreeMap<String, View>, Fault> {
    let arena = &pickle.arena;
    let mut root = pickle.root;
    for _ in 0..DEEPEST {
        let inner = WRAPPERS.iter().find_map(|key| entry(arena, root, key));
        match inner {
            Some(id) if matches!(arena.get(id), Value::Dict(_)) => root = id,
            _ => break,
        }
    }
    let mut tensors = BTreeMap::new();
    let (mut steps, mut letters) = (0, 0);
    // A walk with a list of what is left to do: values may contain themselves.
    let mut left: Vec<(String, Id, usize)> = vec![(String::new(), root, 0)];
    while let Some((name, id, depth)) = left.pop() {
        steps += 1;
        if steps > MOST || depth > DEEPEST {
            return Err("its values are nested too deep, or contain themselves".into());
        }
        let join = |key: &str| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
        match arena.get(id) {
            Value::Tensor(tensor) => {
                let name = if name.is_empty() { "tensor".to_string() } else { name };
                let view = view(arena, tensor, &spans).map_err(|fault| format!("tensor `{name}`: {fault}"))?;
                if tensors.insert(name.clone(), view).is_some() {
                    return Err(format!("two tensors are called `{name}`").into());
                }
            }
            Value::Dict(entries) => {
                for (key, value) in entries {
                    let key = match arena.get(*key) {
                        Value::Text(key) => join(key),
                        Value::Int(key) => join(&key.to_string()),
                        _ => continue,
                    };
                    // A long name on every level would multiply.
                    letters += key.len();
                    if letters > pickle::LONGEST as usize {
                        return Err("the names of its tensors are longer than is believed".into());
                    }
                    left.push((key, *value, depth + 1));
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                letters += items.len() * (name.len() + 8);
                if letters > pickle::LONGEST as usize {
                    return Err("the names of its tensors are longer than is believed".into());
                }
                left.extend(items.iter().enumerate().map(|(i, item)| (join(&i.to_string()), *item, depth + 1)));
            }
            _ => {}
        }
        if left.len() > MOST {
            return Err("it holds more values than are believed".into());
        }
    }
    if tensors.is_empty() {
        return Err("it holds no tensors: it is something else than a checkpoint".into());
    }
    Ok(tensors)
}

fn view(arena: &Arena, tensor: &TensorRef, spans: &impl Fn(&str) -> Option<Span>) -> Result<View, String> {
    let (key, dtype) = storage(arena, tensor.storage)?;
    let encoding = encoding(tensor.dtype.or(dtype))?;
    let span = spans(key).ok_or_else(|| format!("its storage `{key}` is missing"))?;
    let width = encoding.block().1;
    let held = span.len / width;
    let sizes: Vec<usize> = tensor
        .sizes
        .iter()
        .map(|n| usize::try_from(*n).map_err(|_| "a size is not believed"))
        .collect::<Result<_, _>>()?;
    // Not even on the way to a zero.
    let counted = tensor.sizes.iter().try_fold(1u64, |a, b| a.checked_mul((*b).max(1)));
    counted.ok_or("it has more values than can be counted")?;
    let count: u64 = tensor.sizes.iter().product();
    // The element after the last that is touched.
    let reach = tensor
        .sizes
        .iter()
        .zip(&tensor.strides)
        .try_fold(0u64, |sum, (n, stride)| sum.checked_add(n.saturating_sub(1).checked_mul(*stride)?));
    let end = reach.and_then(|r| r.checked_add(tensor.offset)).and_then(|r| r.checked_add(u64::from(count > 0)));
    match end {
        Some(end) if end <= held || count == 0 => {}
        _ => return Err(format!("it reaches beyond its storage `{key}`, which holds {held} values")),
    }
    // A tensor may repeat values, but memory for it must stay within what the file has.
    if count > held.max(1 << 20) {
        return Err(format!("it has {count} values, but its storage `{key}` only {held}"));
    }
    let mut expected = 1;
    let mut plain = true;
    for (n, stride) in tensor.sizes.iter().zip(&tensor.strides).rev() {
        plain &= *n == 1 || *stride == expected;
        expected = expected.saturating_mul((*n).max(1));
    }
    let strides = (!plain && count > 0).then(|| tensor.strides.clone());
    Ok(View {
        info: TensorInfo { encoding, sizes },
        storage: span,
        offset: if count == 0 { 0 } else { tensor.offset },
        strides,
    })
}

impl Source for TorchFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|v| v.info.clone())
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        let View { info, storage, offset, strides } = &self.tensors[name];
        let width = info.encoding.block().1;
        let Some(strides) = strides else {
            return self.bytes(storage.begin + offset * width, info.bytes());
        };
        let whole = self.bytes(storage.begin, storage.len)?;
        let (bytes, width) = (whole.into_bytes()?, width as usize);
        let mut out = Vec::with_capacity(info.bytes() as usize);
        let mut index = vec![0usize; info.sizes.len()];
        for _ in 0..info.count() {
            let at = index.iter().zip(strides).map(|(i, s)| *i as u64 * s).sum::<u64>() + offset;
            out.extend_from_slice(&bytes[at as usize * width..][..width]);
            for (i, n) in index.iter_mut().zip(&info.sizes).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Raw::Bytes(out))
    }
}
