//! What symphonia reads from, with a guard against loops.
//!
//! A faulty file can make a reader ask again and again at its end. Each such question comes by
//! here, so counting those that bring nothing bounds the time that any file takes.

use std::io::{Error, Read, Result, Seek, SeekFrom};
use symphonia::core::io::MediaSource;

/// How often nothing may be read, or seeks follow each other, before it counts as a loop.
const PATIENCE: u32 = 100_000;

/// A source of bytes that refuses to be asked in a loop.
pub(super) struct Guarded<S> {
    inner: S,
    idle: u32,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, idle: 0 }
    }

    fn idle(&mut self) -> Result<()> {
        self.idle += 1;
        if self.idle > PATIENCE {
            return Err(Error::other("the recording's parts point at each other in a circle"));
        }
        Ok(())
    }
}

impl<S: Read> Read for Guarded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 {
            self.idle()?;
        }
        Ok(read)
    }
}

impl<S: Seek> Seek for Guarded<S> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.idle()?;
        self.inner.seek(to)
    }
}

impl<S: MediaSource> MediaSource for Guarded<S> {
    fn is_seekable(&self) -> bool {
        self.inner.is_seekable()
    }
    fn byte_len(&self) -> Option<u64> {
        self.inner.byte_len()
    }
}

/// A stream that cannot be read twice, such as standard input.
pub(super) struct Once<R>(pub(super) std::sync::Mutex<R>);

impl<R: Read> Read for Once<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.get_mut().map_err(|_| Error::other("an earlier read panicked"))?.read(buffer)
    }
}

impl<R> Seek for Once<R> {
    fn seek(&mut self, _: SeekFrom) -> Result<u64> {
        Err(Error::other("a stream cannot be read from another position: save it to a file first"))
    }
}

impl<R: Read + Send> MediaSource for Once<R> {
    fn is_seekable(&self) -> bool {
        false
    }
    fn byte_len(&self) -> Option<u64> {
        None
    }
}
