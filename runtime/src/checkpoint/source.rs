//! Named tensors, wherever they come from.
//!
//! A [`Source`] lists tensors with their sizes and encodings and hands out their bytes as they are
//! stored ([`Raw`]). Values follow from the bytes in one place ([`values`]), so that a reader of
//! another format is a few lines: it says where each tensor lies. Bytes can stay where they are
//! until a device wants them; quantized weights need never become `f32`.

use super::values;
use super::{Checkpoint, CheckpointError, Encoding, ValueError};
use crate::graph::DType;
use crate::module::store::Data;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// One tensor as a source lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its values are stored.
    pub encoding: Encoding,
    /// The size of each dimension, the last one contiguous.
    pub sizes: Vec<usize>,
}

impl TensorInfo {
    /// How many values it holds.
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// How many bytes its values take as they are stored.
    pub fn bytes(&self) -> u64 {
        // Sources list whole blocks alone.
        self.encoding.bytes(self.count() as u64).unwrap_or(0)
    }
}

/// A tensor's bytes as they are stored: row-major, little-endian, blocks along the last dimension.
#[derive(Clone, PartialEq, Eq)]
pub enum Raw {
    /// They lie in a file, one after the other.
    File {
        /// The file.
        path: PathBuf,
        /// The first byte, counted from the start of the file.
        begin: u64,
        /// How many.
        len: u64,
    },
    /// They were made: put into another order, decompressed, computed.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raw::File { path, begin, len } => write!(f, "{len} bytes of `{}` from {begin}", path.display()),
            Raw::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl Raw {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Raw::File { len, .. } => *len,
            Raw::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the bytes to a stream.
    ///
    /// # Errors
    /// Those of the system; an early end of a file that changed since it was opened.
    pub fn copy_to(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let (path, begin, len) = match self {
            Raw::Bytes(bytes) => return out.write_all(bytes),
            Raw::File { path, begin, len } => (path, *begin, *len),
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(begin))?;
        match std::io::copy(&mut file.take(len), out)? == len {
            true => Ok(()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The bytes in memory.
    ///
    /// # Errors
    /// Those of the system: a file that changed since it was opened.
    pub fn into_bytes(self) -> Result<Vec<u8>, CheckpointError> {
        let (path, begin, len) = match self {
            Raw::Bytes(bytes) => return Ok(bytes),
            Raw::File { path, begin, len } => (path, begin, len),
        };
        let failed = |source| CheckpointError::Io { action: "read", path: path.clone(), source };
        let mut out = Vec::new();
        usize::try_from(len)
            .ok()
            .and_then(|n| out.try_reserve_exact(n).ok())
            .ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let found = file.take(len).read_to_end(&mut out).map_err(failed)?;
        match found as u64 == len {
            true => Ok(out),
            false => Err(failed(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
        }
    }
}

/// Named tensors. [`Checkpoint`] is one; so is every reader of another format.
///
/// ```
/// use mobilis_runtime::checkpoint::{CheckpointError, Encoding, Raw, Source, TensorInfo};
/// use mobilis_runtime::graph::DType;
/// use std::path::Path;
///
/// /// One tensor that is computed.
/// #[derive(Debug)]
/// struct Ramp;
///
/// impl Source for Ramp {
///     fn path(&self) -> &Path {
///         Path::new("a ramp")
///     }
///     fn names(&self) -> Vec<&str> {
///         vec!["ramp"]
///     }
///     fn info(&self, name: &str) -> Option<TensorInfo> {
///         (name == "ramp").then(|| TensorInfo { encoding: Encoding::U8, sizes: vec![3] })
///     }
///     fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
///         self.find(name)?;
///         Ok(Raw::Bytes(vec![0, 1, 2]))
///     }
/// }
/// assert_eq!(Ramp.read("ramp", DType::I32, false)?.to_f64(), [0.0, 1.0, 2.0]);
/// # Ok::<(), CheckpointError>(())
/// ```
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Where the tensors come from, for messages.
    fn path(&self) -> &Path;

    /// The name of every tensor, sorted.
    fn names(&self) -> Vec<&str>;

    /// One tensor's description, where there is one of the name. Its bytes can be counted.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Whether values can be read, which is usual. Of a source of headers alone a model is made that
    /// is checked as others are, but has no values.
    fn has_values(&self) -> bool {
        true
    }

    /// A tensor's bytes as they are stored: as many as [`TensorInfo::bytes`] says.
    ///
    /// # Errors
    /// No such tensor; a file that cannot be read.
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError>;

    /// One tensor's description.
    ///
    /// # Errors
    /// No tensor of the name; the error has the nearest one.
    fn find(&self, name: &str) -> Result<TensorInfo, CheckpointError> {
        self.info(name).ok_or_else(|| CheckpointError::NoSuchTensor {
            path: self.path().into(),
            name: name.into(),
            hint: crate::suggest::did_you_mean(name, self.names()),
        })
    }

    /// Reads a tensor into the storage of programs: reals become `f32`, or with `wide` `f64`, which
    /// holds every stored real exactly; whole numbers `i32`; truth values one byte.
    ///
    /// # Errors
    /// No such tensor; an encoding of another kind of number; a value that does not fit; a file
    /// that changed since it was opened.
    fn read(&self, name: &str, dtype: DType, wide: bool) -> Result<Data, CheckpointError> {
        let TensorInfo { encoding, sizes } = self.find(name)?;
        let count = sizes.iter().product();
        let (path, read) = match self.raw(name)? {
            Raw::Bytes(bytes) => (None, values::read(&mut &bytes[..], count, encoding, dtype, wide)),
            Raw::File { path, begin, len } => {
                let failed = |source| CheckpointError::Io { action: "read", path: path.clone(), source };
                let mut file = File::open(&path).map_err(failed)?;
                file.seek(SeekFrom::Start(begin)).map_err(failed)?;
                let read = values::read(&mut BufReader::new(file).take(len), count, encoding, dtype, wide);
                (Some(path), read)
            }
        };
        let path = path.unwrap_or_else(|| self.path().to_path_buf());
        read.map_err(|source| match source {
            ValueError::Io(source) => CheckpointError::Io { action: "read", path, source },
            source => CheckpointError::Value { path, tensor: name.into(), source },
        })
    }
}

impl Source for Checkpoint {
    fn path(&self) -> &Path {
        Checkpoint::path(self)
    }

    fn names(&self) -> Vec<&str> {
        self.tensors().map(|(name, _)| name).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.get(name).map(|stored| TensorInfo { encoding: stored.encoding, sizes: stored.sizes.clone() })
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        let stored = Checkpoint::find(self, name)?;
        let part = &self.parts()[stored.part];
        Ok(Raw::File { path: part.path.clone(), begin: part.values_at + stored.begin, len: stored.bytes() })
    }
}

/// What a model is loaded from: the path of a [`Checkpoint`], a checkpoint, or any other source
/// (`&dyn Source`).
pub trait Origin {
    /// The tensors.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] for a path.
    fn source(&self) -> Result<Opened<'_>, CheckpointError>;
}

/// A source that was opened for one load, or is lent for it.
#[derive(Debug)]
pub enum Opened<'a> {
    /// Opened for it.
    Own(Box<dyn Source>),
    /// Lent.
    Lent(&'a dyn Source),
}

impl<'a> std::ops::Deref for Opened<'a> {
    type Target = dyn Source + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Opened::Own(source) => &**source,
            Opened::Lent(source) => *source,
        }
    }
}

impl<P: AsRef<Path> + ?Sized> Origin for P {
    fn source(&self) -> Result<Opened<'_>, CheckpointError> {
        Ok(Opened::Own(Box::new(Checkpoint::open(self)?)))
    }
}

impl Origin for &dyn Source {
    fn source(&self) -> Result<Opened<'_>, CheckpointError> {
        Ok(Opened::Lent(*self))
    }
}

impl Origin for &Checkpoint {
    fn source(&self) -> Result<Opened<'_>, CheckpointError> {
        Ok(Opened::Lent(*self))
    }
}
