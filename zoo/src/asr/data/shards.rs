//! Corpora in tar archives: NeMo's tarred datasets and WebDataset's.
//!
//! An archive is read once from header to header; what is kept is where each member begins. Nothing is
//! ever extracted: a member's name is a key and no path, so one that leads out of the folder (`../../x`)
//! or to a link is harmless. Members of unlike names are found by what stands between the last `/` and
//! the last `.`, as NeMo does.
//!
//! A manifest tells of members by `audio_filepath`. Manifests and shards of like number belong together
//! one by one; a single manifest tells of all shards, by `shard_id` where it has it. Without a manifest
//! ([`web`]) the members beside a recording tell: `7.wav`, `7.txt`, `7.json`.

use super::manifest::{self, Line};
use super::{DataError, Sound, Utterance};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// A tar file's block, in bytes.
const BLOCK: u64 = 512;
/// The longest name of a member, and the longest text beside a recording.
const LONGEST: u64 = 1 << 20;

/// A file within an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The byte at which it begins.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// The files within a tar archive that is not compressed: V7, ustar, GNU's long names, pax.
///
/// # Errors
/// An archive that cannot be read, is compressed, damaged, or cut off.
pub fn members(path: &Path) -> Result<Vec<Member>, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let (mut found, mut at) = (vec![], 0u64);
    // What the headers before a member's say of it.
    let (mut name, mut longer): (Option<String>, Option<u64>) = (None, None);
    loop {
        let fault = |fault: String| DataError::Bytes { path: path.to_path_buf(), at, fault };
        if at == size {
            return Ok(found);
        }
        if size - at < BLOCK {
            return Err(fault("the archive is cut off within a header".into()));
        }
        let mut block = [0; BLOCK as usize];
        reader.read_exact(&mut block).map_err(io)?;
        if block.iter().all(|b| *b == 0) {
            return Ok(found);
        }
        if at == 0 && block.starts_with(b"\x1f\x8b") {
            return Err(fault("the archive is compressed: `gunzip` it, so that its members can be found".into()));
        }
        let header = tar::Header::from_byte_slice(&block);
        let sum: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(fault("no header of a tar archive: its checksum is wrong".into()));
        }
        let kind = header.entry_type();
        let declared = header.entry_size().map_err(|e| fault(format!("a size that is no number: {e}")))?;
        let length = longer.filter(|_| kind.is_file()).unwrap_or(declared);
        let start = at + BLOCK;
        if length > size - start {
            return Err(fault(format!(
                "a member of {length} bytes, and {} are left: the archive is cut off",
                size - start
            )));
        }
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            if length > LONGEST {
                return Err(fault(format!("a name of {length} bytes; at most {LONGEST} are read")));
            }
            let mut bytes = vec![0; length as usize];
            reader.read_exact(&mut bytes).map_err(io)?;
            reader.seek(SeekFrom::Start(start)).map_err(io)?;
            if kind.is_gnu_longname() {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                name = Some(String::from_utf8_lossy(&bytes[..end]).into_owned());
            } else {
                for extension in tar::PaxExtensions::new(&bytes) {
                    let extension = extension.map_err(|e| fault(format!("a faulty pax header: {e}")))?;
                    match extension.key_bytes() {
                        b"path" => name = Some(String::from_utf8_lossy(extension.value_bytes()).into_owned()),
                        b"size" => longer = extension.value().ok().and_then(|v| v.parse().ok()),
                        _ => {}
                    }
                }
            }
        } else {
            if kind.is_file() {
                let short = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
                found.push(Member { name: name.take().unwrap_or_else(short), start, length });
            }
            (name, longer) = (None, None);
        }
        at = (start + length.div_ceil(BLOCK) * BLOCK).min(size);
        reader.seek(SeekFrom::Start(at)).map_err(io)?;
    }
}

/// What NeMo finds a member by: the name without its folder and its ending.
fn key(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// One archive, ready to be looked into.
struct Shard {
    file: Arc<Path>,
    members: Vec<Member>,
    by_key: HashMap<String, usize>,
}

impl Shard {
    fn open(path: &Path) -> Result<Shard, DataError> {
        let members = members(path)?;
        let by_key = members.iter().enumerate().map(|(i, m)| (key(&m.name).to_string(), i)).collect();
        Ok(Shard { file: path.into(), members, by_key })
    }

    fn sound(&self, name: &str) -> Option<Sound> {
        self.by_key.get(key(name)).map(|i| self.part(&self.members[*i]))
    }

    fn part(&self, member: &Member) -> Sound {
        let Member { name, start, length } = member.clone();
        Sound::Part { file: self.file.clone(), start, length, name }
    }
}

/// The utterances of manifests whose sounds are in tar archives; patterns of names as in
/// [`read_all`](manifest::read_all).
///
/// # Errors
/// Files that cannot be read, faulty lines, a sound that its shard does not hold.
pub fn tarred<S: AsRef<str>>(folder: &Path, manifests: &[S], archives: &[S]) -> Result<Vec<Utterance>, DataError> {
    let manifests = manifest::paths(folder, manifests)?;
    let shards: Vec<Shard> =
        manifest::paths(folder, archives)?.iter().map(|path| Shard::open(path)).collect::<Result<_, _>>()?;
    let together = manifests.len() == shards.len();
    if manifests.len() > 1 && !together {
        let fault = format!("{} manifests tell of {} shards: one each, or one for all", manifests.len(), shards.len());
        return Err(DataError::Corpus { path: folder.to_path_buf(), fault });
    }
    let mut all = vec![];
    for (i, path) in manifests.iter().enumerate() {
        for line in manifest::lines(path)? {
            let own = if together { Some(i) } else { shard_id(path, &line, shards.len())? };
            let among = own.map_or(&shards[..], |i| &shards[i..=i]);
            let Some(sound) = among.iter().find_map(|s| s.sound(&line.audio)) else {
                let place = own.map_or("any of the shards".into(), |i| format!("`{}`", shards[i].file.display()));
                let fault = format!("`{}` is not in {place}", line.audio);
                return Err(DataError::Line { path: path.clone(), line: line.number, fault });
            };
            all.push(Utterance { sound, ..line.utterance });
        }
    }
    Ok(all)
}

/// Which shard a line tells of, where it says so.
fn shard_id(path: &Path, line: &Line, shards: usize) -> Result<Option<usize>, DataError> {
    let Some(value) = line.utterance.more.get("shard_id") else { return Ok(None) };
    match value.as_u64().filter(|id| *id < shards as u64) {
        Some(id) => Ok(Some(id as usize)),
        None => {
            let fault = format!("`shard_id` is {value}, and there are {shards} shards, numbered from 0");
            Err(DataError::Line { path: path.to_path_buf(), line: line.number, fault })
        }
    }
}

/// Endings of sound files.
const SOUNDS: [&str; 8] = ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "sph"];

/// The utterances of archives as WebDataset has them: members of one key belong together, a sound, a
/// `.txt` with what is said, a `.json` with what a line of a manifest says.
///
/// # Errors
/// Archives that cannot be read; texts that are not UTF-8 or JSON.
pub fn web<S: AsRef<str>>(folder: &Path, archives: &[S]) -> Result<Vec<Utterance>, DataError> {
    let mut all = vec![];
    for path in manifest::paths(folder, archives)? {
        let shard = Shard::open(&path)?;
        all.extend(web_shard(&shard)?);
    }
    Ok(all)
}

fn web_shard(shard: &Shard) -> Result<Vec<Utterance>, DataError> {
    // WebDataset's key ends at the first dot of the name.
    let split = |name: &str| -> (String, String) {
        let at = name.rfind('/').map_or(0, |i| i + 1);
        let dot = name[at..].find('.').map_or(name.len(), |i| at + i);
        (name[..dot].to_string(), name[dot..].trim_start_matches('.').to_lowercase())
    };
    let mut found: Vec<Utterance> = vec![];
    let mut of: HashMap<String, usize> = HashMap::new();
    for member in &shard.members {
        let (key, ending) = split(&member.name);
        if SOUNDS.contains(&ending.as_str()) {
            of.insert(key, found.len());
            found.push(Utterance::new(shard.part(member)));
        }
    }
    for member in &shard.members {
        let (key, ending) = split(&member.name);
        let Some(index) = of.get(&key) else { continue };
        if ending != "txt" && ending != "json" {
            continue;
        }
        let fault = |fault: String| {
            let fault = format!("`{}` {fault}", member.name);
            DataError::Bytes { path: shard.file.to_path_buf(), at: member.start, fault }
        };
        let bytes = shard.part(member).bytes(LONGEST)?;
        let text = String::from_utf8(bytes).map_err(|_| fault("is not UTF-8".into()))?;
        let utterance = &mut found[*index];
        if ending == "txt" {
            utterance.text = Some(text.trim().to_string());
            continue;
        }
        let map = serde_json::from_str(&text).map_err(|e| fault(format!("is no JSON object: {e}")))?;
        let (_, said) = manifest::utterance(map, Path::new("")).map_err(fault)?;
        let (sound, before) = (utterance.sound.clone(), utterance.text.take());
        *utterance = Utterance { sound, text: said.text.clone().or(before), ..said };
    }
    Ok(found)
}
