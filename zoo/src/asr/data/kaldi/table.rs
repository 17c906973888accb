//! Tables: a key and a value a line.

use crate::asr::data::DataError;
use std::collections::HashSet;
use std::path::Path;

/// A line of a table.
pub(super) struct Row {
    /// From 1.
    pub line: usize,
    pub key: String,
    /// The rest of the line without space around it; may be empty.
    pub value: String,
}

/// The rows of a table, in order. Keys are unique.
pub(super) fn rows(path: &Path) -> Result<Vec<Row>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let (mut rows, mut keys) = (vec![], HashSet::new());
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if !keys.insert(key.to_string()) {
            return Err(fault(path, i + 1, format!("`{key}` has a line already")));
        }
        rows.push(Row { line: i + 1, key: key.into(), value: value.trim().into() });
    }
    Ok(rows)
}

pub(super) fn fault(path: &Path, line: usize, fault: String) -> DataError {
    DataError::Line { path: path.to_path_buf(), line, fault }
}

/// Refuses what Kaldi would give to a shell.
pub(super) fn no_command(path: &Path, row: &Row) -> Result<(), DataError> {
    let value = &row.value;
    if value.ends_with('|') || value.starts_with('|') || value == "-" {
        let words =
            format!("`{value}` is a command, and commands are not run: write its output to a file and name that");
        return Err(fault(path, row.line, words));
    }
    if value.is_empty() {
        return Err(fault(path, row.line, format!("`{}` has no place", row.key)));
    }
    Ok(())
}

/// A place's file and, behind the last colon, the byte at which it begins.
pub(super) fn place(value: &str) -> (&str, Option<u64>) {
    match value.rsplit_once(':').map(|(file, at)| (file, at.parse())) {
        Some((file, Ok(at))) => (file, Some(at)),
        _ => (value, None),
    }
}
