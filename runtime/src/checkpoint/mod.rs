//! Checkpoints: named tensors in safetensors files.
//!
//! A safetensors file is eight bytes with the length of a JSON header, the header (name, dtype,
//! shape and byte range of every tensor) and the values, little-endian and row-major
//! (<https://github.com/huggingface/safetensors>). Large checkpoints are split into parts with
//! `model.safetensors.index.json` beside them, as on Hugging Face's hub. [`Checkpoint`] reads
//! both, [`Writer`] writes both. Models are loaded from any [`Source`] of named tensors: a
//! checkpoint is one, readers of other formats are others.
//!
//! * **Nothing is believed.** [`header`] checks a file whole before any value is read: lengths,
//!   offsets, overlaps, holes, names. The header is parsed here and not by the crate
//!   `safetensors`, because that one silently keeps the last of two tensors of one name, reports
//!   faults without their place, and brings serde's derive macros into every build.
//! * **Memory is bounded.** Values are read tensor by tensor through a small buffer and converted
//!   on the way ([`values`]). Nothing is mapped unless
//!   [`LoadOptions::as_stored`](crate::LoadOptions::as_stored) asks for it, since a file that shrinks
//!   under a mapping kills the process.
//! * **Old files survive.** [`atomic`] writes beside the target, flushes to the disk and renames;
//!   a full disk leaves what was there before.

pub mod atomic;
mod directory;
pub mod encoding;
pub mod error;
pub mod header;
pub mod source;
pub mod values;
pub mod write;

use crate::array::Array;
use crate::graph::DType;
use crate::language::element::{Base, Element, Host};
use crate::language::shape::Shape;
use crate::module::store::Data;
pub use encoding::{Blocks, Encoding};
pub use error::{CheckpointError, HeaderError, ValueError};
pub use source::{Origin, Raw, Source, TensorInfo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
pub use write::Writer;

/// One tensor of a checkpoint, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How its values are stored.
    pub encoding: Encoding,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// Its first byte, counted from the start of its file's values.
    pub begin: u64,
    /// The byte after its last.
    pub end: u64,
    /// Which of [`Checkpoint::parts`] holds it.
    pub part: usize,
}

impl Stored {
    /// How many values it holds.
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// How many bytes it takes in the file.
    pub fn bytes(&self) -> u64 {
        self.end - self.begin
    }
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// Where its values start.
    pub values_at: u64,
    /// The header's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// An opened checkpoint: headers are read and checked, values are read on demand.
///
/// ```no_run
/// use mobilis_runtime::checkpoint::Checkpoint;
/// let checkpoint = Checkpoint::open("model.safetensors")?;
/// for (name, stored) in checkpoint.tensors() {
///     println!("{name} {} {:?} {} bytes", stored.encoding, stored.sizes, stored.bytes());
/// }
/// # Ok::<(), mobilis_runtime::checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    parts: Vec<Part>,
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Opens a safetensors file, the index of a sharded checkpoint, or a directory that holds
    /// `model.safetensors` or `model.safetensors.index.json`. Where it holds both, the single
    /// file counts, as in Hugging Face's library.
    ///
    /// # Errors
    /// A path that does not exist, and every fault of a header or an index; nothing is repaired.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        directory::open(path.as_ref())
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, one unless the checkpoint is sharded.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &Stored)> + '_ {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// One tensor's description, where there is one of the name.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// One tensor's description.
    ///
    /// # Errors
    /// No tensor of the name; the error has the nearest one.
    pub fn find(&self, name: &str) -> Result<&Stored, CheckpointError> {
        self.get(name).ok_or_else(|| CheckpointError::NoSuchTensor {
            path: self.path.clone(),
            name: name.into(),
            hint: crate::suggest::did_you_mean(name, self.tensors.keys()),
        })
    }

    /// How many values all tensors hold together.
    pub fn total_count(&self) -> u64 {
        self.tensors.values().map(|t| t.count() as u64).sum()
    }

    /// How many bytes all tensors take together, headers not counted.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(Stored::bytes).sum()
    }

    /// Reads a tensor into the storage of programs: reals become `f32` (rounded), whole numbers
    /// `i32` (exactly), truth values one byte.
    ///
    /// # Errors
    /// No such tensor; an encoding of another kind of number; a value that does not fit; a file
    /// that changed since it was opened.
    pub fn read(&self, name: &str, dtype: DType) -> Result<Data, CheckpointError> {
        Source::read(self, name, dtype, false)
    }

    /// As [`read`](Self::read), but reals become `f64`, which holds every stored real exactly.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_wide(&self, name: &str, dtype: DType) -> Result<Data, CheckpointError> {
        Source::read(self, name, dtype, true)
    }

    /// Reads a tensor as a typed array.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and sizes that contradict a static axis or each other.
    pub fn array<S: Shape, E: Element>(&self, name: &str) -> Result<Array<S, E>, CheckpointError> {
        let stored = self.find(name)?;
        let shape = |source| CheckpointError::Array { path: self.path.clone(), tensor: name.into(), source };
        let mut sizes = S::Sizes::default();
        if stored.sizes.len() != S::RANK {
            return Err(shape(crate::ArrayError::rank::<S>(&stored.sizes)));
        }
        sizes.as_mut().copy_from_slice(&stored.sizes);
        let values = match self.read(name, <E::Base as Base>::DTYPE)? {
            Data::F32(v) => v.into_iter().map(|v| Host::from_f64(v.into())).collect(),
            other => other.to_f64().into_iter().map(Host::from_f64).collect(),
        };
        Array::new(sizes, values).map_err(shape)
    }
}
