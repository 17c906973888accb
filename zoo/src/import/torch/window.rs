//! A part of a file that is read as if it were a file.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// So many bytes from a place on.
#[derive(Debug)]
pub(super) struct Window<R> {
    inner: R,
    begin: u64,
    len: u64,
    at: u64,
}

impl<R: Read + Seek> Window<R> {
    pub fn new(mut inner: R, begin: u64, len: u64) -> Result<Window<R>> {
        inner.seek(SeekFrom::Start(begin))?;
        Ok(Window { inner, begin, len, at: 0 })
    }
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(out.len());
        let read = self.inner.read(&mut out[..most])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for Window<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let place = at.and_then(|at| Some((at, self.begin.checked_add(at)?)));
        let (at, place) = place.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        self.inner.seek(SeekFrom::Start(place))?;
        self.at = at;
        Ok(at)
    }
}
