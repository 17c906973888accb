//! Pipelines: modules and host stages joined into one thing that runs.
//!
//! A model alone takes arrays and gives arrays. Around it stand a tokenizer, features, a search, a
//! writer: *stages*, things that take a value and give a value ([`Stage`]). A compiled [`Program`] is a
//! stage, and so is a closure. `pipeline!` joins them into a graph without circles whose every edge the
//! compiler checks, shape and element, and writes the typed shell; what happens is here, once, without
//! types: [`core`] holds the wiring and runs it for one item or a batch, [`stream`] lets the stages
//! overlap on threads, [`timing`] counts, `draw` draws.
//!
//! Values travel as `Box<dyn Any + Send>`. The macro alone packs and unpacks them, by types that it has
//! made the compiler compare, so no unpacking can fail.
//!
//! [`items`] lets a program that was compiled for a batch be a stage for one item: items are padded,
//! their lengths go along, and what comes out is cut again. `workflow` (a feature, with tokio) runs several
//! pipelines over one budget.

pub mod core;
#[cfg(feature = "draw")]
mod draw;
pub mod error;
pub mod items;
pub mod shell;
pub mod stage;
pub mod stream;
pub mod timing;
#[cfg(feature = "workflow")]
pub mod workflow;

pub use self::core::Core;
pub use error::{Failure, PipelineError};
pub use items::{ItemError, Padded, PaddedArray, PerItem};
pub use stage::{Pure, Stage, pure};
pub use stream::{Canceller, Stream, StreamOptions};
pub use timing::{StageTime, Timing, Traced};

#[cfg(doc)]
use crate::Program;

#[cfg(test)]
mod tests;
