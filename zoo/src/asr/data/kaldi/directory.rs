//! Data directories.

use super::archive::beside;
use super::table::{self, Row};
use crate::asr::data::{DataError, Sound, Utterance};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The utterances of a data directory: of `segments` where it has them, else of `wav.scp`, in order.
/// `text`, `utt2spk`, `utt2lang`, `utt2dur` and `reco2dur` add what they know. The utterance's key is kept
/// as `utterance`.
///
/// # Errors
/// No `wav.scp`; a table that cannot be read; a faulty line; a key of another table that has no sound.
pub fn read(folder: &Path) -> Result<Vec<Utterance>, DataError> {
    let path = folder.join("wav.scp");
    let mut recordings = HashMap::new();
    let mut order = vec![];
    for row in table::rows(&path)? {
        table::no_command(&path, &row)?;
        recordings.insert(row.key.clone(), sound(&path, &row)?);
        order.push(row.key);
    }
    let lengths = numbers(&folder.join("reco2dur"))?;
    let mut found = vec![];
    let segments = folder.join("segments");
    if segments.exists() {
        for row in table::rows(&segments)? {
            found.push(segment(&segments, row, &recordings)?);
        }
    } else {
        for key in order {
            let duration = lengths.get(&key).copied();
            let utterance = Utterance { duration, ..Utterance::new(recordings[&key].clone()) };
            found.push((key, utterance));
        }
    }
    let index: HashMap<String, usize> = found.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
    let mut with = |name: &str, set: fn(&mut Utterance, String)| -> Result<(), DataError> {
        let path = folder.join(name);
        if !path.exists() {
            return Ok(());
        }
        for row in table::rows(&path)? {
            let Some(i) = index.get(&row.key) else {
                let words = format!("`{}` is no utterance of this directory", row.key);
                return Err(table::fault(&path, row.line, words));
            };
            set(&mut found[*i].1, row.value);
        }
        Ok(())
    };
    with("text", |u, text| u.text = Some(text))?;
    with("utt2spk", |u, speaker| u.speaker = Some(speaker))?;
    with("utt2lang", |u, lang| u.lang = Some(lang))?;
    for (key, seconds) in numbers(&folder.join("utt2dur"))? {
        if let Some(i) = index.get(&key) {
            found[*i].1.duration = Some(seconds);
        }
    }
    let named = |(key, mut utterance): (String, Utterance)| {
        utterance.more.insert("utterance".into(), key.into());
        utterance
    };
    Ok(found.into_iter().map(named).collect())
}

/// Where a line of `wav.scp` says that sound is: a file, or a byte of an archive of WAV files.
fn sound(path: &Path, row: &Row) -> Result<Sound, DataError> {
    let whole = beside(path, &row.value);
    let (name, at) = table::place(&row.value);
    // A colon may belong to the name.
    let (Some(start), false) = (at, whole.exists()) else { return Ok(Sound::File(whole)) };
    let name = beside(path, name);
    let io = |source| DataError::Io { path: name.clone(), source };
    let mut file = File::open(&name).map_err(io)?;
    let left = file.metadata().map_err(io)?.len().saturating_sub(start);
    file.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut head = [0; 8];
    if left < 8 || file.read_exact(&mut head).is_err() {
        let words = format!("`{}` has no sound at byte {start}", name.display());
        return Err(table::fault(path, row.line, words));
    }
    // A RIFF file says how long it is; one written to a pipe says nothing.
    let said = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]])) + 8;
    let length = if head.starts_with(b"RIFF") && (9..=left).contains(&said) { said } else { left };
    Ok(Sound::Part { file: name.as_path().into(), start, length, name: row.key.clone() })
}

/// A line of `segments`: utterance, recording, begin, end, and perhaps a channel.
fn segment(path: &Path, row: Row, recordings: &HashMap<String, Sound>) -> Result<(String, Utterance), DataError> {
    let fault = |words: String| table::fault(path, row.line, words);
    let words: Vec<&str> = row.value.split_whitespace().collect();
    let (recording, begin, end, channel) = match words[..] {
        [recording, begin, end] => (recording, begin, end, None),
        [recording, begin, end, channel] => (recording, begin, end, Some(channel)),
        _ => return Err(fault("an utterance, a recording, a begin and an end are expected".into())),
    };
    let Some(sound) = recordings.get(recording) else {
        let hint = mobilis_runtime::suggest::did_you_mean(recording, recordings.keys());
        return Err(fault(format!("`{recording}` is not in wav.scp{hint}")));
    };
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|s| s.is_finite());
    let begin = seconds(begin).filter(|s| *s >= 0.0).ok_or_else(|| fault(format!("it begins at `{begin}`")))?;
    let duration = match seconds(end) {
        Some(end) if end > begin => Some(end - begin),
        // To the end.
        Some(-1.0) => None,
        _ => return Err(fault(format!("it begins at {begin} s and ends at `{end}`"))),
    };
    let channel = match channel {
        None => None,
        Some(c) => Some(c.parse().map_err(|_| fault(format!("`{c}` is no channel: a number is expected")))?),
    };
    let utterance = Utterance { offset: begin, duration, channel, ..Utterance::new(sound.clone()) };
    Ok((row.key, utterance))
}

/// A table of seconds; empty where there is none.
fn numbers(path: &Path) -> Result<HashMap<String, f64>, DataError> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let number = |row: Row| match row.value.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok((row.key, seconds)),
        _ => Err(table::fault(path, row.line, format!("`{}` is no number of seconds", row.value))),
    };
    table::rows(path)?.into_iter().map(number).collect()
}
