//! Manifests: one JSON object a line, as NeMo has them.
//!
//! | key | meaning |
//! |---|---|
//! | `audio_filepath` (or `audio_filename`) | the recording; relative to the manifest's folder |
//! | `duration`, `offset` | seconds |
//! | `channel` | from 0 |
//! | `text`, or `text_filepath` | what is said |
//! | `label` or `command`, `speaker`, `lang` | of what kind it is, whose, in which language |
//!
//! Any other key is kept as it is. A line that does not hold what these say is an error with its number;
//! null counts as absent, and empty lines are passed over.

use super::{DataError, Sound, Utterance};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 1 << 24;

/// A line of a manifest before it is known where its sound is.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What `audio_filepath` says.
    pub audio: String,
    /// All but the sound.
    pub utterance: Utterance,
    /// The number of the line.
    pub number: usize,
}

/// The utterances of a manifest.
///
/// # Errors
/// A file that cannot be read; the first faulty line.
pub fn read(path: &Path) -> Result<Vec<Utterance>, DataError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let placed = |line: Line| Utterance { sound: Sound::File(folder.join(&line.audio)), ..line.utterance };
    Ok(lines(path)?.into_iter().map(placed).collect())
}

/// The utterances of several manifests, in order. Each of `patterns` may stand for many: see
/// [`expand`](super::expand). Relative ones are looked for in `folder`.
///
/// # Errors
/// Those of [`read`] and of [`expand_list`](super::expand::expand_list).
pub fn read_all<S: AsRef<str>>(folder: &Path, patterns: &[S]) -> Result<Vec<Utterance>, DataError> {
    let mut all = vec![];
    for path in paths(folder, patterns)? {
        all.extend(read(&path)?);
    }
    Ok(all)
}

/// The files that patterns stand for.
pub(super) fn paths<S: AsRef<str>>(folder: &Path, patterns: &[S]) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = vec![];
    for pattern in patterns {
        paths.extend(super::expand::expand_list(pattern.as_ref())?.iter().map(|p| folder.join(p)));
    }
    Ok(paths)
}

/// The lines of a manifest.
pub(super) fn lines(path: &Path) -> Result<Vec<Line>, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut found, mut number) = (vec![], 0);
    loop {
        number += 1;
        let fault = |fault: String| DataError::Line { path: path.to_path_buf(), line: number, fault };
        let mut bytes = vec![];
        reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes).map_err(io)?;
        if bytes.is_empty() {
            return Ok(found);
        }
        if bytes.len() as u64 == LONGEST_LINE && bytes.last() != Some(&b'\n') {
            return Err(fault(format!("longer than {LONGEST_LINE} bytes: is this JSON lines?")));
        }
        // Some editors begin a file with a mark of its byte order.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_slice(text).map_err(|e| fault(format!("no JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(fault(format!("{} instead of a JSON object", kind(&value))));
        };
        let (audio, utterance) = utterance(map, folder).map_err(fault)?;
        let audio = audio.ok_or_else(|| fault(missing(&utterance.more)))?;
        found.push(Line { audio, utterance, number });
    }
}

fn missing(others: &Map<String, Value>) -> String {
    let near = others.keys().find_map(|key| mobilis_runtime::suggest::nearest(key, &["audio_filepath"]).map(|_| key));
    match near {
        Some(key) => format!("`{key}` is not known; did you mean `audio_filepath`?"),
        None => "has no `audio_filepath`".into(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What an object says of an utterance, and its `audio_filepath`. `folder` is that of its text files.
pub(super) fn utterance(mut map: Map<String, Value>, folder: &Path) -> Result<(Option<String>, Utterance), String> {
    let mut take = |keys: &[&str]| -> Option<(String, Value)> {
        keys.iter().find_map(|key| match map.shift_remove(*key)? {
            Value::Null => None,
            value => Some((key.to_string(), value)),
        })
    };
    let string = |found: Option<(String, Value)>| match found {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text)),
        Some((key, other)) => Err(format!("`{key}` is {other}, {} instead of a string", kind(&other))),
    };
    let seconds = |found: Option<(String, Value)>| match found {
        None => Ok(None),
        Some((key, value)) => match value.as_f64() {
            Some(s) if s.is_finite() && s >= 0.0 => Ok(Some(s)),
            _ => Err(format!("`{key}` is {value}; a number of seconds, at least 0, is expected")),
        },
    };
    let audio = string(take(&["audio_filepath", "audio_filename"]))?;
    let offset = seconds(take(&["offset"]))?.unwrap_or(0.0);
    let duration = seconds(take(&["duration"]))?;
    let channel = match take(&["channel"]) {
        None => None,
        Some((_, value)) => match value.as_u64().filter(|c| *c < 1 << 16) {
            Some(channel) => Some(channel as usize),
            None => return Err(format!("`channel` is {value}; a whole number, from 0, is expected")),
        },
    };
    let mut text = string(take(&["text"]))?;
    if let Some(file) = string(take(&["text_filepath"]))?
        && text.is_none()
    {
        let path = folder.join(file);
        let read = std::fs::read_to_string(&path).map_err(|e| format!("cannot read `{}`: {e}", path.display()))?;
        text = Some(read.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    // A command that is a label may also be a number.
    let label = match take(&["label", "command"]) {
        Some((_, Value::Number(n))) => Some(n.to_string()),
        other => string(other)?,
    };
    let speaker = match take(&["speaker"]) {
        Some((_, Value::Number(n))) => Some(n.to_string()),
        other => string(other)?,
    };
    let lang = string(take(&["lang"]))?;
    let sound = Sound::File(PathBuf::new());
    Ok((audio, Utterance { sound, offset, duration, channel, text, label, speaker, lang, more: map }))
}

/// Writes a manifest, whole or not at all. Sounds are named relative to its folder where they lie in it.
///
/// # Errors
/// Those of the system; a sound that is no file of its own.
pub fn write(path: &Path, utterances: &[Utterance]) -> Result<(), DataError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut lines = Vec::with_capacity(utterances.len());
    for u in utterances {
        let Sound::File(file) = &u.sound else {
            let fault = format!("a manifest names files, and {} is a part of one", u.sound);
            return Err(DataError::Corpus { path: path.to_path_buf(), fault });
        };
        let mut map = Map::new();
        let name = file.strip_prefix(folder).unwrap_or(file);
        map.insert("audio_filepath".into(), name.to_string_lossy().into());
        for (key, value) in [("duration", u.duration), ("offset", Some(u.offset).filter(|o| *o != 0.0))] {
            map.extend(value.map(|v| (key.into(), v.into())));
        }
        map.extend(u.channel.map(|c| ("channel".into(), c.into())));
        for (key, value) in [("text", &u.text), ("label", &u.label), ("speaker", &u.speaker), ("lang", &u.lang)] {
            map.extend(value.as_ref().map(|v| (key.into(), v.as_str().into())));
        }
        map.extend(u.more.clone());
        lines.push(Value::Object(map).to_string());
    }
    let all = |out: &mut std::io::BufWriter<File>| lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    mobilis_runtime::checkpoint::atomic::replace(path, all)
        .map_err(|source| DataError::Io { path: path.to_path_buf(), source })
}
