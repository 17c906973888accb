//! Kaldi's archives, lists and tables: the first byte says which, zeros part the tables of a directory.
#![no_main]

use mobilis_zoo::asr::data::kaldi::{self, Archive};

#[path = "../scratch.rs"]
mod scratch;

/// The tables of a data directory.
const TABLES: [&str; 8] = ["wav.scp", "segments", "text", "utt2spk", "utt2lang", "utt2dur", "reco2dur", "spk2utt"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            for entry in Archive::open(&scratch::file("it.ark", bytes)).into_iter().flatten() {
                let Ok((_, matrix)) = entry else { return };
                assert_eq!(matrix.data.len(), matrix.rows * matrix.cols);
            }
        }
        1 => {
            // The list, then the archive that it can lead to.
            let at = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            scratch::file("it.ark", bytes.get(at + 1..).unwrap_or_default());
            for (_, place) in kaldi::scp(&scratch::file("it.scp", &bytes[..at])).into_iter().flatten() {
                // No other file of this machine is read.
                if place.file == scratch::path("it.ark") {
                    let _ = place.read();
                }
            }
        }
        _ => {
            let mut parts = bytes.split(|b| *b == 0);
            for table in TABLES {
                match parts.next() {
                    Some(part) => drop(scratch::file(table, part)),
                    None => drop(std::fs::remove_file(scratch::path(table))),
                }
            }
            let _ = kaldi::read(&scratch::path(""));
        }
    }
});
