//! One recording, or a part of one, and what is known of it.

use super::DataError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where sound is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// A file.
    File(PathBuf),
    /// Bytes within a file: a member of a shard, an entry of an archive.
    Part {
        /// The file.
        file: Arc<Path>,
        /// Where they begin.
        start: u64,
        /// How many they are.
        length: u64,
        /// What they are called there.
        name: String,
    },
}

impl Sound {
    /// The bytes of a sound file.
    ///
    /// # Errors
    /// What the system says; a sound of more than `limit` bytes; a part that its file ends before.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>, DataError> {
        let (path, start, length) = match self {
            Sound::File(path) => (path.as_path(), 0, None),
            Sound::Part { file, start, length, .. } => (&**file, *start, Some(*length)),
        };
        let io = |source| DataError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = match length {
            Some(length) => length,
            None => file.metadata().map_err(io)?.len(),
        };
        if length > limit {
            let fault = format!("a sound of {length} bytes; at most {limit} are read at once");
            return Err(DataError::Bytes { path: path.to_path_buf(), at: start, fault });
        }
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(io)?;
        if matches!(self, Sound::Part { .. }) && bytes.len() as u64 != length {
            let fault = format!("the file ends {} bytes before the sound does", length - bytes.len() as u64);
            return Err(DataError::Bytes { path: path.to_path_buf(), at: start, fault });
        }
        Ok(bytes)
    }
}

impl std::fmt::Display for Sound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sound::File(path) => write!(f, "{}", path.display()),
            Sound::Part { file, name, .. } => write!(f, "{}:{name}", file.display()),
        }
    }
}

/// A recording, or a part of one, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Utterance {
    /// Where it is heard.
    pub sound: Sound,
    /// Where it begins in the recording, in seconds.
    pub offset: f64,
    /// How long it is, in seconds; the rest of the recording where it is not known.
    pub duration: Option<f64>,
    /// The channel, from 0; the mean of all where none is named.
    pub channel: Option<usize>,
    /// What is said.
    pub text: Option<String>,
    /// What it is: a command, a language, whether it is speech.
    pub label: Option<String>,
    /// Who speaks.
    pub speaker: Option<String>,
    /// The language, by its ISO 639-1 code.
    pub lang: Option<String>,
    /// Everything else that its list says.
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Utterance {
    /// A whole recording of which nothing is known.
    pub fn new(sound: Sound) -> Utterance {
        Utterance {
            sound,
            offset: 0.0,
            duration: None,
            channel: None,
            text: None,
            label: None,
            speaker: None,
            lang: None,
            more: serde_json::Map::new(),
        }
    }
}
