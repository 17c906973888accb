//! What can be wrong with the data of a corpus.

use std::path::PathBuf;

/// Why a corpus cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refuses.
    #[error("cannot read `{}`: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A line of a list is faulty.
    #[error("`{}` line {line}: {fault}", .path.display())]
    Line {
        /// The list.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        fault: String,
    },
    /// A binary file is faulty.
    #[error("`{}` at byte {at}: {fault}", .path.display())]
    Bytes {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        fault: String,
    },
    /// Files that do not fit each other, or a list that does not fit what is asked.
    #[error("`{}`: {fault}", .path.display())]
    Corpus {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A pattern of file names.
    #[error("the pattern `{pattern}` {fault}")]
    Pattern {
        /// What was written.
        pattern: String,
        /// What is wrong.
        fault: String,
    },
}
