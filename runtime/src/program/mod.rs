//! Programs: graphs made ready to run.
//!
//! [`Executable`] is the untyped half: it binds a graph to the sizes of
//! the arrays at hand ([`bind`]), keeps what was prepared for them, and runs it on a device.
//! [`Program`] is the typed shell that takes and gives
//! [`Array`](struct@crate::Array)s; `Model::compile` makes one from a function.

pub mod bind;
pub mod executable;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(not(feature = "cuda"))]
#[path = "without_gpu.rs"]
mod gpu;
pub mod host;
mod kept;
pub mod model;
#[cfg(feature = "draw")]
pub mod profile;
mod taken;
pub mod typed;
pub mod weights;

use crate::graph::trace::TraceError;
use crate::transforms::grad::GradError;
use crate::transforms::precision::PrecisionError;
pub use executable::{Executable, NonFinite};
pub use typed::{Arguments, Collected, Feed, Program, Results, trace_function};
pub use weights::{StoredWeight, WeightFormat, Weights};

/// Why a program could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The function could not be traced.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A gradient could not be taken.
    #[error(transparent)]
    Grad(#[from] GradError),
    /// Arrays and axes disagree.
    #[error(transparent)]
    Bind(#[from] bind::BindError),
    /// A variable that the graph reads has no value.
    #[error("`{name}` has no value: it is not part of the model that this program was compiled from")]
    NoValue {
        /// The variable.
        name: String,
    },
    /// A variable's value has other sizes than this run needs.
    #[error("`{name}` {shape} has sizes {found:?}, this run needs {expected:?}")]
    Variable {
        /// The variable.
        name: String,
        /// Its shape in axis names.
        shape: String,
        /// The sizes of its value.
        found: Vec<usize>,
        /// The sizes by the arguments at hand.
        expected: Vec<usize>,
    },
    /// The device cannot run the graph for these sizes.
    #[error("{0}")]
    Lower(String),
    /// An operation refused its data.
    #[error("{op} in {location}: {message}")]
    Run {
        /// The operation.
        op: String,
        /// The module.
        location: String,
        /// What it says.
        message: String,
    },
    /// A pattern for weights that matches none.
    #[error("no weight of this program matches \"{pattern}\"{hint}")]
    NoWeight {
        /// The pattern.
        pattern: String,
        /// The nearest name.
        hint: String,
    },
    /// The precision asked for fits no part of the program.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// A value that is not finite, found because the program was asked to look.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// A tap that does not exist.
    #[error("there is no tap \"{name}\"{hint}")]
    NoTap {
        /// The name asked for.
        name: String,
        /// The nearest name, or that nothing has run yet.
        hint: String,
    },
    /// A tap read as another type.
    #[error("tap \"{name}\" is {found}, not {expected}")]
    TapType {
        /// The name.
        name: String,
        /// Its type.
        found: String,
        /// The type asked for.
        expected: String,
    },
}
