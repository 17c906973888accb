//! What can be wrong with a checkpoint.

use super::Encoding;
use crate::array::ArrayError;
use crate::graph::DType;
use std::path::PathBuf;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is nothing at the path.
    #[error("there is no checkpoint at `{}`{hint}", .path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// What may have been meant, as the end of a sentence.
        hint: String,
    },
    /// The operating system refuses.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file's header is faulty.
    #[error("`{}` is no valid safetensors file: {source}", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// The index of a sharded checkpoint is faulty, or contradicts the parts.
    #[error("the index `{}` is faulty: {fault}", .path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// No tensor of the name.
    #[error("`{}` has no tensor `{name}`{hint}", .path.display())]
    NoSuchTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The name.
        name: String,
        /// The nearest name, as the end of a sentence.
        hint: String,
    },
    /// A tensor's values cannot be read as asked.
    #[error("tensor `{tensor}` of `{}`: {source}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: ValueError,
    },
    /// A tensor does not fit the type of an array.
    #[error("tensor `{tensor}` of `{}`: {source}", .path.display())]
    Array {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: ArrayError,
    },
    /// A file of another format is faulty.
    #[error("`{}` is no valid {format}: {fault}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be: `GGUF file`, `PyTorch checkpoint`.
        format: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// What is to be written makes no valid file.
    #[error("cannot write tensor `{tensor}`: {fault}")]
    Unwritable {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        fault: String,
    },
}

/// What is wrong with the header of a safetensors file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// Not even a length.
    #[error(
        "a file starts with 8 bytes that hold the header's length, but this one has {found} bytes; it was cut off, or is something else"
    )]
    TooShort {
        /// The file's length.
        found: u64,
    },
    /// The header is said to be longer than any real one.
    #[error(
        "the header is said to take {found} bytes, but at most {limit} are allowed; the file is damaged, or is something else"
    )]
    Oversized {
        /// The length in the first 8 bytes.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header is longer than the file.
    #[error(
        "the header is said to take {header} bytes, but only {found} follow; the file was cut off: copy or download it again"
    )]
    HeaderCutOff {
        /// The length in the first 8 bytes.
        header: u64,
        /// How many bytes follow.
        found: u64,
    },
    /// Bytes that are no text.
    #[error("the header is not UTF-8 text: byte {position} starts no character")]
    Utf8 {
        /// The first wrong byte, counted from the header's start.
        position: usize,
    },
    /// Text that is no JSON, or not the JSON of a header.
    #[error("the header is not a JSON object: {message}")]
    Json {
        /// The parser's words, with line and column.
        message: String,
    },
    /// Two tensors of one name.
    #[error("two tensors are called `{tensor}`")]
    Duplicate {
        /// The name.
        tensor: String,
    },
    /// `__metadata__` is more than names and texts.
    #[error("`__metadata__` maps names to texts, but {found}")]
    Metadata {
        /// What was found.
        found: String,
    },
    /// A tensor's entry has not exactly the three keys, or a value of another kind.
    #[error("tensor `{tensor}` is described by `dtype`, `shape` and `data_offsets`, but {found}")]
    Entry {
        /// The tensor.
        tensor: String,
        /// What was found.
        found: String,
    },
    /// A dtype that the format does not have.
    #[error("tensor `{tensor}` has the unknown dtype `{dtype}`{hint}")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The dtype.
        dtype: String,
        /// The nearest dtype, as the end of a sentence.
        hint: String,
    },
    /// More values than can be counted.
    #[error("tensor `{tensor}` of shape {shape:?} has more bytes than 64 bits can count")]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Shape and dtype ask for a number of bytes that the offsets do not enclose.
    #[error(
        "tensor `{tensor}` of shape {shape:?} and dtype {encoding} takes {expected} bytes, but its offsets enclose {found}"
    )]
    Length {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its dtype.
        encoding: Encoding,
        /// Bytes by shape, as a number of bits divided by 8.
        expected: String,
        /// Bytes by offsets.
        found: u64,
    },
    /// Offsets in the wrong order.
    #[error("tensor `{tensor}` ends at byte {end}, before it begins at {begin}")]
    Misordered {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The byte after its last.
        end: u64,
    },
    /// A tensor reaches beyond the end of the file.
    #[error(
        "tensor `{tensor}` ends at byte {end}, but the file has only {found} bytes of values; it was cut off: copy or download it again"
    )]
    CutOff {
        /// The tensor.
        tensor: String,
        /// The byte after its last.
        end: u64,
        /// How many bytes of values the file has.
        found: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap: the first ends at byte {end}, the second begins at {begin}")]
    Overlap {
        /// The one that begins earlier.
        first: String,
        /// The one that begins later.
        second: String,
        /// The byte after the first's last.
        end: u64,
        /// The second's first byte.
        begin: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin} to {end} belong to no tensor: the next one is `{next}`")]
    Hole {
        /// The first of them.
        begin: u64,
        /// The byte after the last of them.
        end: u64,
        /// The tensor after the hole.
        next: String,
    },
    /// Bytes after the last tensor.
    #[error("{found} bytes follow the last tensor")]
    Trailing {
        /// How many.
        found: u64,
    },
}

/// Why stored values cannot be read as asked.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// The file cannot be read, or ends too early.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another kind of number.
    #[error("it is stored as {found}, which is not read as {expected}: {}", kinds(*.expected))]
    Kind {
        /// How it is stored.
        found: Encoding,
        /// What was asked for.
        expected: DType,
    },
    /// A value that the storage cannot hold.
    #[error("value {value} at position {position} (stored as {encoding}) does not fit {expected}")]
    Range {
        /// The value, printed.
        value: String,
        /// Where it is in row-major order.
        position: usize,
        /// How it is stored.
        encoding: Encoding,
        /// What was asked for.
        expected: DType,
    },
    /// Values that end within a block.
    #[error("{count} values are no whole number of {} blocks, which hold {} each", .blocks.name(), .blocks.values())]
    Partial {
        /// How many there are.
        count: usize,
        /// How they are stored.
        blocks: super::encoding::Blocks,
    },
    /// More values than memory can hold.
    #[error("{count} values do not fit into memory")]
    Memory {
        /// How many there are.
        count: usize,
    },
}

fn kinds(expected: DType) -> &'static str {
    match expected {
        DType::F32 => "reals are read from F64, F32, F16, BF16, F8_E4M3, F8_E5M2 and GGUF's blocks",
        DType::I32 => "indices are read from whole numbers of 8 to 64 bits",
        DType::Bool => "truth values are read from BOOL, and from U8 that holds 0 and 1 alone",
    }
}
