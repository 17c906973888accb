//! Bytes of files: mapped where they are many, copied where they are few.
//!
//! Weights that stay as a file has them need not be read into memory a second time: a mapping
//! shows the file's own pages, which the system shares between processes, fetches on first touch
//! and takes back when memory is short. The price: a file that is *shortened* while it is mapped
//! ends the process with `SIGBUS` at the next touch of a page that is gone, and one that is
//! overwritten in place shows the new bytes. A file that is replaced by renaming, as well-behaved
//! writers do (ours too), is safe: the old contents live as long as the mapping.
//!
//! So small files, which cost little, are copied and cannot change any more ([`COPIED`]), and a
//! caller who does not trust the owner of a large one reads it: [`Bytes::from`] takes any vector.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Files of at most so many bytes are copied.
pub const COPIED: u64 = 16 << 20;

/// A range of bytes that do not change, shared by its clones.
#[derive(Clone)]
pub struct Bytes {
    whole: Arc<Whole>,
    range: Range<usize>,
}

enum Whole {
    Owned(Vec<u8>),
    #[cfg(all(unix, target_pointer_width = "64"))]
    Mapped(map::Mapping),
}

impl Whole {
    fn bytes(&self) -> &[u8] {
        match self {
            Whole::Owned(bytes) => bytes,
            #[cfg(all(unix, target_pointer_width = "64"))]
            Whole::Mapped(mapping) => mapping.bytes(),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { whole: Arc::new(Whole::Owned(bytes)), range }
    }
}

impl Bytes {
    /// A file's contents: mapped from [`COPIED`] bytes on where the system can, copied otherwise.
    ///
    /// # Errors
    /// Those of the system, and no memory for a copy.
    pub fn of_file(file: &mut File) -> io::Result<Bytes> {
        let length = file.metadata()?.len();
        #[cfg(all(unix, target_pointer_width = "64"))]
        if length > COPIED {
            let mapping = map::Mapping::new(file, usize::try_from(length).map_err(io::Error::other)?)?;
            let range = 0..mapping.bytes().len();
            return Ok(Bytes { whole: Arc::new(Whole::Mapped(mapping)), range });
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(length).map_err(io::Error::other)?).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(0))?;
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// A part of these bytes; nothing where it reaches beyond them.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let fits = range.start <= range.end && range.end <= self.len();
        let start = self.range.start;
        fits.then(|| Bytes { whole: self.whole.clone(), range: start + range.start..start + range.end })
    }

    /// Whether they are a file's pages and no copy.
    pub fn is_mapped(&self) -> bool {
        !matches!(&*self.whole, Whole::Owned(_))
    }

    /// Tells the system that they are not needed for now: a file's pages leave this process's
    /// memory, and come back where they are read again. Copies stay.
    pub fn release(&self) {
        #[cfg(all(unix, target_pointer_width = "64"))]
        if let Whole::Mapped(mapping) = &*self.whole {
            mapping.release(self.range.clone());
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.whole.bytes()[self.range.clone()]
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        Arc::ptr_eq(&self.whole, &other.whole) && self.range == other.range || **self == **other
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes{}", self.len(), if self.is_mapped() { " of a mapped file" } else { "" })
    }
}

#[cfg(all(unix, target_pointer_width = "64"))]
mod map {
    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn mmap(start: *mut c_void, bytes: usize, protect: c_int, flags: c_int, file: c_int, at: i64) -> *mut c_void;
        fn munmap(start: *mut c_void, bytes: usize) -> c_int;
        fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    /// The same numbers on Linux, macOS and the BSDs.
    const READ: c_int = 1;
    const PRIVATE: c_int = 2;
    const DONT_NEED: c_int = 4;
    /// No system's pages are larger than a multiple of this; advice about others is refused.
    const PAGE: usize = 4096;

    /// A file's pages, for reading.
    pub struct Mapping {
        start: *mut c_void,
        bytes: usize,
    }
    // SAFETY: nobody writes to it; the pages live until it is dropped.
    unsafe impl Send for Mapping {}
    // SAFETY: as above.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        pub fn new(file: &File, bytes: usize) -> io::Result<Mapping> {
            // SAFETY: a new mapping at an address that the system chooses touches nothing.
            let start = unsafe { mmap(std::ptr::null_mut(), bytes, READ, PRIVATE, file.as_raw_fd(), 0) };
            if start.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(Mapping { start, bytes }) }
        }

        pub fn bytes(&self) -> &[u8] {
            // SAFETY: so many bytes are mapped for reading as long as this lives. That the file
            // keeps its length is the caller's part, as the module says.
            unsafe { std::slice::from_raw_parts(self.start.cast(), self.bytes) }
        }

        pub fn release(&self, range: Range<usize>) {
            let (from, to) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
            if from < to && to <= self.bytes {
                // SAFETY: whole pages of a private mapping that is never written: what is read
                // there again is the file's. A refusal changes nothing.
                unsafe { madvise(self.start.wrapping_byte_add(from), to - from, DONT_NEED) };
            }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`; nobody borrows it any more.
            unsafe { munmap(self.start, self.bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("mobilis-bytes-{}-{name}", std::process::id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    #[test]
    fn small_files_are_copied_and_large_ones_mapped() {
        let mut small = file("small", b"some bytes");
        let bytes = Bytes::of_file(&mut small).unwrap();
        assert!(&*bytes == b"some bytes" && !bytes.is_mapped());
        small.set_len(0).unwrap();
        assert_eq!(&*bytes.slice(5..10).unwrap(), b"bytes");
        assert!(bytes.slice(5..11).is_none());

        let all: Vec<u8> = (0..COPIED as usize + 5000).map(|i| (i % 251) as u8).collect();
        let bytes = Bytes::of_file(&mut file("large", &all)).unwrap();
        assert_eq!(bytes.is_mapped(), cfg!(all(unix, target_pointer_width = "64")));
        let part = bytes.slice(3..all.len() - 1).unwrap();
        drop(bytes);
        assert!(*part == all[3..all.len() - 1]);
        part.release();
        assert!(*part == all[3..all.len() - 1]);
        assert_eq!(part, Bytes::from(part.to_vec()));
    }
}
