//! Values that stay as a file stores them: 16 bits each, or in blocks that share scales.
//!
//! A model that is only run need not hold its matrices in `f32`: half or a seventh of the memory
//! does, and products read weights in those forms anyway. An [`Encoded`] holds a file's bytes (in
//! its mapped pages, or copied: [`mobilis_kernels::bytes`] says when and what that means for a
//! file that changes) and gives values of any part on demand. Nothing writes to it: what changes
//! a value first makes `f32` of all ([`Data::materialize`](super::store::Data::materialize)).

use crate::checkpoint::{self, CheckpointError, Raw};
use mobilis_kernels::bytes::Bytes;
pub use mobilis_kernels::cpu::quant::Encoding;
use mobilis_kernels::pool::Pool;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

/// Real numbers as a file stores them.
#[derive(Clone, PartialEq, Debug)]
pub struct Encoded {
    encoding: Encoding,
    count: usize,
    bytes: Bytes,
}

impl Encoded {
    /// `count` values in an encoding; nothing where the bytes are not as many as that takes.
    pub fn new(encoding: Encoding, count: usize, bytes: impl Into<Bytes>) -> Option<Encoded> {
        let bytes = bytes.into();
        (encoding.bytes(count)? == bytes.len()).then_some(Encoded { encoding, count, bytes })
    }

    /// How the values are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The values from number `first` on, as many as `out` holds: exact for 16 bits, and ggml's `f32`
    /// for blocks.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn read(&self, first: usize, out: &mut [f32]) {
        assert!(first + out.len() <= self.count, "values of this tensor");
        self.encoding.widen(&self.bytes, first, out);
    }

    /// All values, made by all threads.
    pub fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.count];
        self.fill(&mut out);
        out
    }

    /// The same in a place that is there.
    ///
    /// # Panics
    /// When it holds another number of values.
    pub fn fill(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.count, "a place for all values");
        self.encoding.widen_all(Pool::global(), &self.bytes, out);
    }
}

/// The encoding that values are kept in, of those that a file may have.
pub fn kept(encoding: checkpoint::Encoding) -> Option<Encoding> {
    match encoding {
        checkpoint::Encoding::F16 => Some(Encoding::F16),
        checkpoint::Encoding::BF16 => Some(Encoding::Bf16),
        checkpoint::Encoding::Blocks(blocks) => Some(blocks.into()),
        _ => None,
    }
}

/// The files of one load, each opened once.
#[derive(Default)]
pub struct Files(HashMap<PathBuf, Bytes>);

impl Files {
    /// The bytes of a tensor: a part of its file, or those that its source made.
    ///
    /// # Errors
    /// Those of the system, and a file that has become shorter.
    pub fn bytes(&mut self, raw: Raw) -> Result<Bytes, CheckpointError> {
        let (path, begin, len) = match raw {
            Raw::Bytes(bytes) => return Ok(bytes.into()),
            Raw::File { path, begin, len } => (path, begin, len),
        };
        let failed = |source| CheckpointError::Io { action: "read", path: path.clone(), source };
        let whole = match self.0.get(&path) {
            Some(whole) => whole.clone(),
            None => {
                let whole = File::open(&path).and_then(|mut file| Bytes::of_file(&mut file)).map_err(failed)?;
                self.0.entry(path.clone()).or_insert(whole).clone()
            }
        };
        let end = begin.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let part = usize::try_from(begin).ok().zip(end).and_then(|(begin, end)| whole.slice(begin..end));
        part.ok_or_else(|| failed(std::io::ErrorKind::UnexpectedEof.into()))
    }
}
