//! Where the members of a tar lie.
//!
//! Nothing is unpacked. Names must be those of files in the archive's own folder (`./NAME`): absolute paths,
//! `..`, links, devices and sparse files, which no model needs, are refused with the member's name rather than
//! left out, and so is a name that occurs twice, of which readers would disagree. A compressed archive is
//! inflated into memory, to a limit that follows its size: weights hardly shrink, bombs grow a thousandfold.

use super::super::ImportError;
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tar::EntryType;

/// No archive has more members.
const MOST: usize = 1 << 16;
/// No member's long name, nor its extended header, is longer.
const LONGEST_NAME: u64 = 1 << 20;
/// A compressed archive of this size or less may grow to [`SMALLEST`].
const SMALLEST: u64 = 64 << 20;
/// What a compressed archive may grow by.
const GROWTH: u64 = 16;
/// What a compressed archive may grow to.
const LARGEST: u64 = 16 << 30;

/// Bytes of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The first, counted from the start of the tar.
    pub begin: u64,
    /// How many.
    pub len: u64,
}

/// The members of a tar by their names.
#[derive(Clone, Debug)]
pub struct Container {
    path: PathBuf,
    /// The whole tar where it was compressed.
    inflated: Option<Arc<[u8]>>,
    members: BTreeMap<String, Member>,
}

impl Container {
    /// Reads the headers of a tar or a tar.gz.
    ///
    /// # Errors
    /// What cannot be read; what is no tar, or holds members that no model needs.
    pub fn open(path: &Path) -> Result<Container, ImportError> {
        let failed = |source| ImportError::Io { action: "read", path: path.into(), source };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let fault = |fault: String| ImportError::Config { path: path.into(), fault };
        if magic == [0x1f, 0x8b] {
            let bytes = inflated(BufReader::new(file), length).map_err(fault)?;
            let members = members(Cursor::new(&bytes[..]), bytes.len() as u64).map_err(fault)?;
            return Ok(Container { path: path.into(), inflated: Some(bytes), members });
        }
        let members = members(BufReader::new(file), length).map_err(fault)?;
        Ok(Container { path: path.into(), inflated: None, members })
    }

    /// Reads the headers of a tar, or a tar.gz, in memory. The path is for messages.
    ///
    /// # Errors
    /// As for [`Container::open`].
    pub fn of_bytes(bytes: Vec<u8>, path: &Path) -> Result<Container, ImportError> {
        let fault = |fault: String| ImportError::Config { path: path.into(), fault };
        let bytes: Arc<[u8]> = match bytes.starts_with(&[0x1f, 0x8b]) {
            true => inflated(&bytes[..], bytes.len() as u64).map_err(fault)?,
            false => bytes.into(),
        };
        let members = members(Cursor::new(&bytes[..]), bytes.len() as u64).map_err(fault)?;
        Ok(Container { path: path.into(), inflated: Some(bytes), members })
    }

    /// The whole tar, where it is in memory.
    pub fn memory(&self) -> Option<&Arc<[u8]>> {
        self.inflated.as_ref()
    }

    /// The names of the members, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Where a member lies.
    pub fn get(&self, name: &str) -> Option<Member> {
        self.members.get(name).copied()
    }

    /// A member's bytes, at most so many.
    ///
    /// # Errors
    /// In words: a longer one, what cannot be read.
    pub fn read(&self, member: Member, most: u64) -> Result<Vec<u8>, String> {
        if member.len > most {
            return Err(format!("it has {} bytes, of which at most {most} are believed", member.len));
        }
        if let Some(bytes) = &self.inflated {
            let (begin, len) = (member.begin as usize, member.len as usize);
            return Ok(bytes.get(begin..begin + len).unwrap_or_default().to_vec());
        }
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(member.begin))?;
            let mut bytes = vec![0; member.len as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| e.to_string())
    }
}

fn inflated(compressed: impl Read, length: u64) -> Result<Arc<[u8]>, String> {
    let most = length.saturating_mul(GROWTH).clamp(SMALLEST, LARGEST);
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(compressed).take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("it is compressed, but damaged: {e}"))?;
    if bytes.len() as u64 > most {
        return Err(format!(
            "its {length} bytes grow to more than {most} when they are decompressed, which no model's do; unpack it, if it is to be trusted"
        ));
    }
    Ok(bytes.into())
}

fn members<R: Read + Seek>(mut file: R, length: u64) -> Result<BTreeMap<String, Member>, String> {
    let damaged = |e: std::io::Error| format!("it is no tar archive, or a damaged one: {e}");
    // Long names are read whole: none is believed to be long.
    let mut archive = tar::Archive::new(&mut file);
    for (i, entry) in archive.entries_with_seek().map_err(damaged)?.raw(true).enumerate() {
        let entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        let extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extension && entry.size() > LONGEST_NAME {
            return Err(format!("a name in its tar has {} bytes", entry.size()));
        }
        if kind.is_gnu_sparse() {
            return Err("its tar holds a file with holes, which no model has".into());
        }
        // A file and what goes before it.
        if i > 4 * MOST {
            return Err(format!("its tar has more than {MOST} members"));
        }
    }
    file.rewind().map_err(damaged)?;
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let shown = || path.chars().take(200).collect::<String>().escape_debug().to_string();
        let name = name(&path).ok_or_else(|| format!("its member `{}` lies outside the archive", shown()))?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Symlink | EntryType::Link => {
                return Err(format!("its member `{}` is a link, which no model needs", shown()));
            }
            _ => return Err(format!("its member `{}` is no file", shown())),
        }
        let member = Member { begin: entry.raw_file_position(), len: entry.size() };
        if member.begin.checked_add(member.len).is_none_or(|end| end > length) {
            return Err(format!("its member `{}` reaches beyond its end: it was cut off", shown()));
        }
        if members.insert(name, member).is_some() {
            return Err(format!("its member `{}` occurs twice", shown()));
        }
        if members.len() > MOST {
            return Err(format!("its tar has more than {MOST} members"));
        }
    }
    match members.is_empty() {
        true => Err("its tar is empty".into()),
        false => Ok(members),
    }
}

/// A member's name without `./`; none where it leads elsewhere.
fn name(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}
