//! Archives (`.ark`) and the lists of places in them (`.scp`).

use super::matrix::{self, Matrix};
use super::table;
use crate::asr::data::DataError;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A key of more bytes than this is none.
const LONGEST_KEY: u64 = 4096;

/// The entries of an archive, one after another.
pub struct Archive {
    path: PathBuf,
    reader: BufReader<File>,
    length: u64,
    over: bool,
}

impl Archive {
    /// Opens an archive.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> Result<Archive, DataError> {
        let io = |source| DataError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        Ok(Archive { path: path.to_path_buf(), reader: BufReader::new(file), length, over: false })
    }

    fn entry(&mut self) -> Result<Option<(String, Matrix)>, DataError> {
        let io = |source| DataError::Io { path: self.path.clone(), source };
        // Text entries end with a line's end, which may be left over.
        let mut key = vec![];
        while let Some(byte) = self.reader.by_ref().bytes().next().transpose().map_err(io)? {
            let space = byte.is_ascii_whitespace();
            if space && !key.is_empty() {
                break;
            }
            if !space {
                key.push(byte);
            }
            if key.len() as u64 > LONGEST_KEY {
                break;
            }
        }
        let at = self.reader.stream_position().map_err(io)?;
        let fault = |fault: String| DataError::Bytes { path: self.path.clone(), at, fault };
        if key.is_empty() {
            return Ok(None);
        }
        if key.len() as u64 > LONGEST_KEY {
            return Err(fault("no archive: an entry begins with a key and a space".into()));
        }
        let key = String::from_utf8(key).map_err(|_| fault("a key that is not UTF-8".into()))?;
        let left = self.length.saturating_sub(at);
        let matrix = matrix::read(&mut self.reader, left).map_err(|e| fault(format!("`{key}`: {e}")))?;
        Ok(Some((key, matrix)))
    }
}

impl Iterator for Archive {
    type Item = Result<(String, Matrix), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let entry = self.entry().transpose();
        self.over = !matches!(entry, Some(Ok(_)));
        entry
    }
}

/// A value in an archive, or alone in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The byte at which the value begins.
    pub start: u64,
    /// The first and last row and the first and last column that are meant, where not all are.
    pub range: [Option<(usize, usize)>; 2],
}

impl Place {
    /// Reads the value.
    ///
    /// # Errors
    /// A file that cannot be read or is faulty, a range beyond the matrix.
    pub fn read(&self) -> Result<Matrix, DataError> {
        let io = |source| DataError::Io { path: self.file.clone(), source };
        let fault = |fault: String| DataError::Bytes { path: self.file.clone(), at: self.start, fault };
        let file = File::open(&self.file).map_err(io)?;
        let left = file.metadata().map_err(io)?.len().saturating_sub(self.start);
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(self.start)).map_err(io)?;
        if reader.fill_buf().map_err(io)?.is_empty() {
            return Err(fault(format!("the file has {} bytes", self.start + left)));
        }
        let matrix = matrix::read(&mut reader, left).map_err(fault)?;
        match self.range {
            [None, None] => Ok(matrix),
            [rows, cols] => matrix.range(rows, cols).map_err(fault),
        }
    }
}

/// The keys and places that an `.scp` file lists: `key file`, `key file:byte`, `key file:byte[0:9]`,
/// `key file:byte[0:9,0:39]`, files relative to where the process runs, as Kaldi has it, or else to the
/// folder of the list.
///
/// # Errors
/// A list that cannot be read; a faulty line; a command.
pub fn scp(path: &Path) -> Result<Vec<(String, Place)>, DataError> {
    let mut places = vec![];
    for row in table::rows(path)? {
        table::no_command(path, &row)?;
        let fault = |what: String| table::fault(path, row.line, what);
        let (value, range) = match row.value.strip_suffix(']').and_then(|v| v.rsplit_once('[')) {
            None => (row.value.as_str(), [None, None]),
            Some((value, range)) => (value, ranges(range).ok_or_else(|| fault(format!("`[{range}]` is no range")))?),
        };
        let (file, at) = table::place(value);
        let place = Place { file: beside(path, file), start: at.unwrap_or(0), range };
        places.push((row.key, place));
    }
    Ok(places)
}

/// A file as a table names it: from here, or else from the table's folder.
pub(super) fn beside(table: &Path, file: &str) -> PathBuf {
    let here = PathBuf::from(file);
    if here.is_absolute() || here.exists() {
        return here;
    }
    table.parent().unwrap_or(Path::new("")).join(here)
}

/// `0:9`, `0:9,0:39`, `:,0:39`.
fn ranges(text: &str) -> Option<[Option<(usize, usize)>; 2]> {
    let one = |text: &str| -> Option<Option<(usize, usize)>> {
        let text = text.trim();
        if text.is_empty() || text == ":" {
            return Some(None);
        }
        let (from, to) = text.split_once(':')?;
        Some(Some((from.trim().parse().ok()?, to.trim().parse().ok()?)))
    };
    match text.split_once(',') {
        None => Some([one(text)?, None]),
        Some((rows, cols)) => Some([one(rows)?, one(cols)?]),
    }
}
