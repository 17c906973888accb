//! The header of a GGUF file: metadata and the list of tensors, checked before any value is read.
//!
//! Little-endian (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): the magic `GGUF`, a version
//! (2 or 3, which differ in nothing else here), the numbers of tensors and of metadata; each
//! metadatum as key, type, value; each tensor as name, sizes *innermost first*, type and offset;
//! then, from a multiple of the alignment on, the values.

use super::meta::{Meta, Metadata, decimal};
use mobilis_runtime::checkpoint::{Blocks, Encoding};
use std::collections::BTreeMap;
use std::io::Read;

/// No header is longer: the largest vocabularies take a seventh of it.
pub const LONGEST: u64 = 100_000_000;
/// Names and keys are short.
const LONGEST_NAME: u64 = 1 << 16;
/// Where values start unless the file says otherwise.
const ALIGNMENT: u64 = 32;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// How its values are stored.
    pub encoding: Encoding,
    /// The size of each dimension, the last one contiguous.
    pub sizes: Vec<usize>,
    /// Its first byte, counted from the start of the file.
    pub begin: u64,
    /// How many bytes it takes.
    pub len: u64,
}

/// A checked header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// What the file says about the model.
    pub metadata: Metadata,
    /// Its tensors, in the order of the file.
    pub tensors: Vec<Entry>,
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

/// Bytes of a header, counted.
struct Bytes<'r, R> {
    from: &'r mut R,
    at: u64,
    end: u64,
}

impl<R: Read> Bytes<'_, R> {
    fn left(&self) -> u64 {
        self.end - self.at
    }

    /// Refuses to go on where fewer bytes are left than what follows must take.
    fn expect(&self, count: u64, each: u64, what: &str) -> Result<(), Fault> {
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.left() => Ok(()),
            _ => Err(Fault::Format(format!(
                "{what} at byte {} would take {count} x {each} bytes, but only {} are left; it was cut off, or is something else",
                self.at,
                self.left()
            ))),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.expect(1, N as u64, "what stands")?;
        let mut out = [0; N];
        self.from.read_exact(&mut out).map_err(Fault::Io)?;
        self.at += N as u64;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn many(&mut self, count: u64, what: &str) -> Result<Vec<u8>, Fault> {
        self.expect(count, 1, what)?;
        let mut out = vec![0; count as usize];
        self.from.read_exact(&mut out).map_err(Fault::Io)?;
        self.at += count;
        Ok(out)
    }

    fn text(&mut self, what: &str) -> Result<String, Fault> {
        let (at, len) = (self.at, self.u64()?);
        let bytes = self.many(len, what)?;
        String::from_utf8(bytes).map_err(|_| Fault::Format(format!("{what} at byte {at} is no UTF-8 text")))
    }

    fn name(&mut self, what: &str) -> Result<String, Fault> {
        let (at, len) = (self.at, self.u64()?);
        if len > LONGEST_NAME {
            return Err(Fault::Format(format!("{what} at byte {at} is said to have {len} bytes")));
        }
        String::from_utf8(self.many(len, what)?)
            .map_err(|_| Fault::Format(format!("{what} at byte {at} is no UTF-8 text")))
    }
}

/// Reads and checks the header of a file of `length` bytes.
///
/// # Errors
/// Every deviation from the format.
pub fn read(from: &mut impl Read, length: u64) -> Result<Header, Fault> {
    let mut bytes = Bytes { from, at: 0, end: length.min(LONGEST) };
    let magic: [u8; 4] = bytes.take()?;
    if &magic != b"GGUF" {
        return Err(Fault::Format(format!("it starts with {magic:02x?}, not with `GGUF`")));
    }
    let version = bytes.u32()?;
    match version {
        2 | 3 => {}
        1 => return Err(Fault::Format("its version is 1, which is not read any more: convert the model anew".into())),
        v if v.swap_bytes() <= 3 => return Err(Fault::Format("it is big-endian, which is not read".into())),
        v => return Err(Fault::Format(format!("its version is {v}, but 2 and 3 are known"))),
    }
    let (tensors, keys) = (bytes.u64()?, bytes.u64()?);
    // The shortest tensor: an empty name, no dimension, a type, an offset.
    bytes.expect(tensors, 24, "the list of tensors")?;
    bytes.expect(keys, 13, "the metadata")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..keys {
        let key = bytes.name("a key of the metadata")?;
        let kind = bytes.u32()?;
        let value = value(&mut bytes, &key, kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Fault::Format(format!("`{key}` stands in its metadata twice")));
        }
    }
    let metadata = Metadata(metadata);
    let alignment = metadata.count("general.alignment")?.unwrap_or(ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(Fault::Format(format!("`general.alignment` is {alignment}, which is no power of two up to 2^20")));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..tensors {
        entries.push(entry(&mut bytes, alignment)?);
    }
    place(&mut entries, bytes.at.next_multiple_of(alignment), length)?;
    Ok(Header { version, metadata, tensors: entries })
}

fn value<R: Read>(bytes: &mut Bytes<R>, key: &str, kind: u32) -> Result<Meta, Fault> {
    Ok(match kind {
        0 => Meta::Count(bytes.take::<1>()?[0] as u64),
        1 => Meta::Int(bytes.take::<1>()?[0] as i8 as i64),
        2 => Meta::Count(u16::from_le_bytes(bytes.take()?) as u64),
        3 => Meta::Int(i16::from_le_bytes(bytes.take()?) as i64),
        4 => Meta::Count(bytes.u32()? as u64),
        5 => Meta::Int(i32::from_le_bytes(bytes.take()?) as i64),
        6 => Meta::Float(decimal(f32::from_le_bytes(bytes.take()?))),
        7 => Meta::Bool(truth(bytes.take::<1>()?[0], key)?),
        8 => Meta::Text(bytes.text(&format!("the value of `{key}`"))?),
        9 => list(bytes, key)?,
        10 => Meta::Count(bytes.u64()?),
        11 => Meta::Int(i64::from_le_bytes(bytes.take()?)),
        12 => Meta::Float(f64::from_le_bytes(bytes.take()?)),
        other => return Err(Fault::Format(format!("`{key}` has the unknown type {other}"))),
    })
}

fn truth(byte: u8, key: &str) -> Result<bool, Fault> {
    match byte {
        0 | 1 => Ok(byte == 1),
        _ => Err(Fault::Format(format!("a truth value of `{key}` is {byte}, neither 0 nor 1"))),
    }
}

fn list<R: Read>(bytes: &mut Bytes<R>, key: &str) -> Result<Meta, Fault> {
    let (kind, count) = (bytes.u32()?, bytes.u64()?);
    let what = format!("the list `{key}`");
    let each = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => return Err(Fault::Format(format!("{what} is a list of lists, which no model needs"))),
        other => return Err(Fault::Format(format!("{what} has the unknown type {other}"))),
    };
    bytes.expect(count, each, &what)?;
    if kind == 8 {
        let mut texts = Vec::with_capacity(count as usize);
        for _ in 0..count {
            texts.push(bytes.text(&what)?);
        }
        return Ok(Meta::Texts(texts));
    }
    let raw = bytes.many(count * each, &what)?;
    /// The elements of one type.
    macro_rules! each {
        ($t:ty, $of:expr) => {
            raw.as_chunks::<{ size_of::<$t>() }>().0.iter().map(|b| $of(<$t>::from_le_bytes(*b)))
        };
    }
    Ok(match kind {
        0 | 1 => Meta::Bytes(raw),
        2 => Meta::Ints(each!(u16, i64::from).collect()),
        3 => Meta::Ints(each!(i16, i64::from).collect()),
        4 => Meta::Ints(each!(u32, i64::from).collect()),
        5 => Meta::Ints(each!(i32, i64::from).collect()),
        6 => Meta::Floats(each!(f32, |v| v).collect()),
        7 => Meta::Bools(raw.iter().map(|b| truth(*b, key)).collect::<Result<_, _>>()?),
        10 => {
            let whole =
                |v: u64| i64::try_from(v).map_err(|_| Fault::Format(format!("{what} has {v}, which is too much")));
            Meta::Ints(each!(u64, whole).collect::<Result<_, _>>()?)
        }
        11 => Meta::Ints(each!(i64, |v| v).collect()),
        _ => Meta::Floats(each!(f64, |v| v as f32).collect()),
    })
}

/// A tensor with its offset from the start of the values as `begin`.
fn entry<R: Read>(bytes: &mut Bytes<R>, alignment: u64) -> Result<Entry, Fault> {
    let name = bytes.name("the name of a tensor")?;
    let rank = bytes.u32()?;
    if rank > 8 {
        return Err(Fault::Format(format!("tensor `{name}` is said to have {rank} dimensions")));
    }
    let mut sizes = Vec::new();
    for _ in 0..rank {
        let size = bytes.u64()?;
        sizes.push(usize::try_from(size).map_err(|_| Fault::Format(format!("tensor `{name}` has a size of {size}")))?);
    }
    sizes.reverse();
    let encoding =
        encoding(bytes.u32()?).map_err(|kind| Fault::Format(format!("tensor `{name}` is stored as {kind}")))?;
    let begin = bytes.u64()?;
    if !begin.is_multiple_of(alignment) {
        return Err(Fault::Format(format!(
            "tensor `{name}` starts at {begin}, no multiple of the alignment {alignment}"
        )));
    }
    let len = encoding.bytes_of(&sizes).ok_or_else(|| {
        Fault::Format(format!(
            "tensor `{name}` of sizes {sizes:?} is no whole number of {encoding} blocks a row, or too large"
        ))
    })?;
    Ok(Entry { name, encoding, sizes, begin, len })
}

/// ggml's types by number.
pub fn encoding(kind: u32) -> Result<Encoding, String> {
    Ok(match kind {
        0 => Encoding::F32,
        1 => Encoding::F16,
        24 => Encoding::I8,
        25 => Encoding::I16,
        26 => Encoding::I32,
        27 => Encoding::I64,
        28 => Encoding::F64,
        30 => Encoding::BF16,
        other => match BLOCKS.iter().find(|(n, _)| *n == other) {
            Some((_, blocks)) => Encoding::Blocks(*blocks),
            None => {
                let name = OTHERS.iter().find(|(n, _)| *n == other).map_or("", |(_, name)| name);
                return Err(format!(
                    "type {other} {name}, which is not read: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K are"
                ));
            }
        },
    })
}

/// The number of an encoding, where GGUF has it.
pub fn number(encoding: Encoding) -> Option<u32> {
    (0..40).find(|n| self::encoding(*n) == Ok(encoding))
}

const BLOCKS: [(u32, Blocks); 10] = [
    (2, Blocks::Q4_0),
    (3, Blocks::Q4_1),
    (6, Blocks::Q5_0),
    (7, Blocks::Q5_1),
    (8, Blocks::Q8_0),
    (10, Blocks::Q2_K),
    (11, Blocks::Q3_K),
    (12, Blocks::Q4_K),
    (13, Blocks::Q5_K),
    (14, Blocks::Q6_K),
];

/// Types that are named in errors alone.
const OTHERS: [(u32, &str); 15] = [
    (9, "(Q8_1)"),
    (15, "(Q8_K)"),
    (16, "(IQ2_XXS)"),
    (17, "(IQ2_XS)"),
    (18, "(IQ3_XXS)"),
    (19, "(IQ1_S)"),
    (20, "(IQ4_NL)"),
    (21, "(IQ3_S)"),
    (22, "(IQ2_S)"),
    (23, "(IQ4_XS)"),
    (29, "(IQ1_M)"),
    (34, "(TQ1_0)"),
    (35, "(TQ2_0)"),
    (39, "(MXFP4)"),
    (40, "(NVFP4)"),
];

/// Turns offsets into places in the file, and checks that these are there and do not overlap.
fn place(entries: &mut [Entry], values_at: u64, length: u64) -> Result<(), Fault> {
    for e in entries.iter_mut() {
        let end = values_at.checked_add(e.begin).and_then(|begin| begin.checked_add(e.len));
        match end {
            Some(end) if end <= length || e.len == 0 => e.begin += values_at,
            _ => {
                return Err(Fault::Format(format!(
                    "tensor `{}` takes {} bytes from {} on, but the file has only {} bytes of values; it was cut off: copy or download it again",
                    e.name,
                    e.len,
                    e.begin,
                    length.saturating_sub(values_at)
                )));
            }
        }
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|e| (e.begin, e.len));
    for pair in order.windows(2) {
        if pair[0].begin + pair[0].len > pair[1].begin {
            return Err(Fault::Format(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name)));
        }
    }
    order.sort_by(|a, b| a.name.cmp(&b.name));
    match order.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(Fault::Format(format!("two tensors are called `{}`", pair[0].name))),
        None => Ok(()),
    }
}
