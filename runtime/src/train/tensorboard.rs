//! TensorBoard's event files: scalars over steps.
//!
//! A folder of a run holds files `events.out.tfevents.<seconds>.<host>.<process>`; each is a sequence of
//! TFRecords (length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes), whose bytes are
//! `Event`s of `tensorflow/core/util/event.proto`. A run that goes on opens a file of its own, and
//! TensorBoard shows all of a folder as one.

use std::fs::{File, create_dir_all};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Begins a file in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// Those of the system.
    pub fn create(folder: impl AsRef<Path>) -> io::Result<EventFile> {
        let folder = folder.as_ref();
        create_dir_all(folder)?;
        let seconds = now() as u64;
        let mut number = 0;
        loop {
            let name = format!("events.out.tfevents.{seconds}.mobilis.{}.{number}", std::process::id());
            let path = folder.join(name);
            match File::create_new(&path) {
                Ok(file) => {
                    let mut events = EventFile { file, path };
                    let mut version = vec![];
                    bytes(&mut version, 3, b"brain.Event:2");
                    events.event(&version)?;
                    return Ok(events);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes values at a step, each under its tag: `loss/train`. They are seen at once.
    ///
    /// # Errors
    /// Those of the system.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = vec![];
        for (tag, value) in values {
            let mut entry = vec![];
            bytes(&mut entry, 1, tag.as_bytes());
            fixed(&mut entry, 2, &(*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = vec![];
        varint(&mut event, 2 << 3);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.event(&event)
    }

    /// Writes an event behind the time of now.
    fn event(&mut self, rest: &[u8]) -> io::Result<()> {
        let mut event = vec![];
        fixed(&mut event, 1, &now().to_le_bytes());
        event.extend_from_slice(rest);
        let length = (event.len() as u64).to_le_bytes();
        // One write, so that a run that is killed leaves whole records.
        let checks = [masked(&length), masked(&event)].map(u32::to_le_bytes);
        self.file.write_all(&[&length[..], &checks[0], &event, &checks[1]].concat())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A protocol buffer's whole number of variable length.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field of 4 or 8 bytes: `float`, `double`.
fn fixed(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | if value.len() == 8 { 1 } else { 5 });
    out.extend_from_slice(value);
}

/// TFRecord's check sum: CRC-32C (Castagnoli), turned and shifted so that sums of sums differ.
fn masked(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    };
    let crc = !bytes.iter().fold(!0, step);
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4: the sum of 32 zeros is 0x8A9136AA, of "123456789" 0xE3069283.
    #[test]
    fn check_sums() {
        let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xA282_EAD8);
        assert_eq!(masked(&[0; 32]), mask(0x8A91_36AA));
        assert_eq!(masked(b"123456789"), mask(0xE306_9283));
    }

    /// What TensorBoard's own reader takes: lengths, sums and fields.
    #[test]
    fn records() {
        let folder = std::env::temp_dir().join(format!("mobilis-events-{}", std::process::id()));
        let mut events = EventFile::create(&folder).expect("a file");
        events.scalars(300, &[("loss", 0.5), ("lr", 1e-3)]).expect("written");
        let second = EventFile::create(&folder).expect("another");
        assert_ne!(events.path(), second.path());
        let all = std::fs::read(events.path()).expect("read");
        std::fs::remove_dir_all(&folder).expect("removed");
        let mut rest = &all[..];
        let mut records = vec![];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes")) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
            assert_eq!(sum(8), masked(&rest[..8]));
            let body = &rest[12..12 + length];
            assert_eq!(sum(12 + length), masked(body));
            records.push(&body[9..]);
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], b"\x1a\x0dbrain.Event:2");
        let summary = b"\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f\x0a\x09\x0a\x02lr\x15\x6f\x12\x83\x3a";
        assert_eq!(records[1], [&b"\x10\xac\x02\x2a\x18"[..], summary].concat());
    }
}
