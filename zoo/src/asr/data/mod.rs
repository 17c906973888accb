//! What recognizers learn from: lists of recordings and what is said in them.
//!
//! Lists come in three forms, and each becomes [`Utterance`]s:
//!
//! - [`manifest`]: JSON lines as NeMo has them, the audio beside them or in tar [`shards`];
//! - [`kaldi`]: data directories, and the matrices of Kaldi's archives.
//!
//! An utterance says where its sound is ([`Sound`]): a file, or a part of one. Shards are indexed, not
//! extracted, so a corpus in shards is shuffled as freely as one in files. A [`bucket::Plan`] puts
//! utterances of like length together, as many as fill so many seconds, in an order that a seed, an
//! epoch and nothing else fixes: a position is one number, every rank computes the same plan, and all
//! get the same number of batches. [`parallel::Ordered`] reads and decodes them on threads ahead of
//! the training step, in order.

pub mod bucket;
mod error;
pub mod expand;
pub mod kaldi;
pub mod manifest;
pub mod parallel;
pub mod shards;
mod utterance;

pub use error::DataError;
pub use utterance::{Sound, Utterance};
