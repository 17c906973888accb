//! Kaldi's data: directories of tables, and archives of matrices.
//!
//! A [data directory](directory) holds tables of one line an utterance: `wav.scp` says where recordings
//! are, `segments` which parts of them are utterances, `text` what is said, `utt2spk` by whom.
//! [`archive`] reads the matrices and vectors of `.ark` files, alone or through the places that an `.scp`
//! file lists. Formats as in Kaldi's `util/kaldi-table.h`, `matrix/kaldi-matrix.cc` and
//! `matrix/compressed-matrix.cc`.
//!
//! Kaldi's tables may hold shell commands (`sph2pipe -f wav x.sph |`). These are never run: such a line
//! is an error that says so.

pub mod archive;
pub mod directory;
mod matrix;
mod table;

pub use archive::{Archive, scp};
pub use directory::read;
pub use matrix::Matrix;
