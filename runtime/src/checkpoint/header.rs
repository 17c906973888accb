//! The header of a safetensors file: parsed and checked whole before any value is read.

use super::encoding::Encoding;
use super::error::HeaderError;
use crate::json::Json;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

/// No header is longer: the limit of the reference implementation.
pub const LONGEST: u64 = 100_000_000;

/// One tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// How its values are stored.
    pub encoding: Encoding,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// Its first byte, counted from the end of the header.
    pub begin: u64,
    /// The byte after its last.
    pub end: u64,
}

/// A checked header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Its tensors, in the order of their bytes.
    pub tensors: Vec<Entry>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Where values start in the file.
    pub values_at: u64,
}

/// Why a header cannot be read: a fault of the file or of the system.
#[derive(Debug)]
pub enum Fault {
    /// The file is faulty.
    Header(HeaderError),
    /// The system refuses.
    Io(std::io::Error),
}

impl From<HeaderError> for Fault {
    fn from(e: HeaderError) -> Fault {
        Fault::Header(e)
    }
}

/// Reads and checks the header of a file of `length` bytes.
///
/// # Errors
/// Every deviation from the format.
pub fn read(file: &mut impl Read, length: u64) -> Result<Header, Fault> {
    if length < 8 {
        return Err(HeaderError::TooShort { found: length }.into());
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(Fault::Io)?;
    let size = u64::from_le_bytes(prefix);
    if size > LONGEST {
        return Err(HeaderError::Oversized { found: size, limit: LONGEST }.into());
    }
    if size > length - 8 {
        return Err(HeaderError::HeaderCutOff { header: size, found: length - 8 }.into());
    }
    // Not more than the file has, so a false length costs no memory.
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text).map_err(Fault::Io)?;
    Ok(parse(&text, length - 8 - size)?)
}

/// Parses and checks a header's text, for a file with `values` bytes after it.
///
/// # Errors
/// Every deviation from the format.
pub fn parse(text: &[u8], values: u64) -> Result<Header, HeaderError> {
    let text_len = text.len() as u64;
    let text = std::str::from_utf8(text).map_err(|e| HeaderError::Utf8 { position: e.valid_up_to() })?;
    if !text.starts_with('{') {
        let message = "it does not start with `{`".to_string();
        return Err(HeaderError::Json { message });
    }
    let json = Json::parse(text).map_err(|e| HeaderError::Json { message: e.to_string() })?;
    let Json::Map(entries) = json else {
        return Err(HeaderError::Json { message: format!("it is {}", json.kind()) });
    };
    let mut header = Header { values_at: 8 + text_len, ..Header::default() };
    let mut seen: HashMap<&str, ()> = HashMap::with_capacity(entries.len());
    for (name, value) in &entries {
        if seen.insert(name, ()).is_some() {
            return Err(HeaderError::Duplicate { tensor: name.clone() });
        }
        match name.as_str() {
            "__metadata__" => header.metadata = metadata(value)?,
            _ => header.tensors.push(entry(name, value)?),
        }
    }
    header.tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    cover(&header.tensors, values)?;
    Ok(header)
}

fn metadata(value: &Json) -> Result<BTreeMap<String, String>, HeaderError> {
    let wrong = |found: String| HeaderError::Metadata { found };
    let Json::Map(entries) = value else {
        return Err(wrong(format!("it is {}", value.kind())));
    };
    let mut out = BTreeMap::new();
    for (key, value) in entries {
        let Json::Text(text) = value else {
            return Err(wrong(format!("`{key}` is {}", value.kind())));
        };
        if out.insert(key.clone(), text.clone()).is_some() {
            return Err(wrong(format!("`{key}` stands there twice")));
        }
    }
    Ok(out)
}

/// Whole numbers of a list.
fn counts(value: &Json) -> Option<Vec<u64>> {
    let Json::List(items) = value else { return None };
    items.iter().map(|v| if let Json::Count(n) = v { Some(*n) } else { None }).collect()
}

fn entry(name: &str, value: &Json) -> Result<Entry, HeaderError> {
    const KEYS: [&str; 3] = ["dtype", "shape", "data_offsets"];
    let wrong = |found: String| HeaderError::Entry { tensor: name.into(), found };
    let Json::Map(fields) = value else {
        return Err(wrong(format!("it is {}", value.kind())));
    };
    let mut found: [Option<&Json>; 3] = [None; 3];
    for (key, value) in fields {
        let Some(i) = KEYS.iter().position(|k| k == key) else {
            return Err(wrong(format!("it has `{key}`{}", crate::suggest::did_you_mean(key, &KEYS))));
        };
        if found[i].replace(value).is_some() {
            return Err(wrong(format!("`{key}` stands there twice")));
        }
    }
    let [Some(dtype), Some(shape), Some(offsets)] = found else {
        let missing = KEYS[found.iter().position(Option::is_none).unwrap_or(0)];
        return Err(wrong(format!("`{missing}` is missing")));
    };
    let Json::Text(dtype) = dtype else {
        return Err(wrong(format!("`dtype` is {}", dtype.kind())));
    };
    let encoding = Encoding::parse(dtype).ok_or_else(|| HeaderError::Dtype {
        tensor: name.into(),
        dtype: dtype.clone(),
        hint: crate::suggest::did_you_mean(dtype, Encoding::ALL.map(|(_, n)| n)),
    })?;
    let shape = counts(shape).ok_or_else(|| wrong("`shape` is no list of whole numbers".into()))?;
    let [begin, end] = counts(offsets).unwrap_or_default()[..] else {
        return Err(wrong("`data_offsets` is no list of two whole numbers".into()));
    };
    if begin > end {
        return Err(HeaderError::Misordered { tensor: name.into(), begin, end });
    }
    // Also a shape with a zero must not overflow on the way, wherever the zero stands.
    let (values, bytes) = encoding.block();
    let total = shape.iter().try_fold(bytes, |a, b| a.checked_mul(*b));
    let sizes: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok()).collect();
    let (Some(total), Some(sizes)) = (total, sizes) else {
        return Err(HeaderError::ShapeOverflow { tensor: name.into(), shape });
    };
    if !total.is_multiple_of(values) || total / values != end - begin {
        let expected =
            if total.is_multiple_of(values) { (total / values).to_string() } else { format!("{total}/{values}") };
        let found = end - begin;
        return Err(HeaderError::Length { tensor: name.into(), shape, encoding, expected, found });
    }
    Ok(Entry { name: name.into(), encoding, sizes, begin, end })
}

/// Checks that tensors, sorted by their bytes, cover all values without holes or overlaps.
fn cover(tensors: &[Entry], values: u64) -> Result<(), HeaderError> {
    let mut at = 0;
    let mut last = "";
    for t in tensors {
        if t.begin < at {
            let (first, second) = (last.into(), t.name.clone());
            return Err(HeaderError::Overlap { first, second, end: at, begin: t.begin });
        }
        if t.end > values {
            return Err(HeaderError::CutOff { tensor: t.name.clone(), end: t.end, found: values });
        }
        if t.begin > at {
            return Err(HeaderError::Hole { begin: at, end: t.begin, next: t.name.clone() });
        }
        (at, last) = (t.end, &t.name);
    }
    if at < values {
        return Err(HeaderError::Trailing { found: values - at });
    }
    Ok(())
}
