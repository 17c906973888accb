//! What can be wrong with a model from outside: sizes, names, values, checkpoints.

use super::mismatch::Mismatch;
use crate::checkpoint::CheckpointError;
use crate::graph::ExtentError;

/// Why a model cannot be made, loaded, saved or changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Two different variables have one name.
    #[error(
        "two parameters are called `{name}`: give one of them another name with `#[name(\"..\")]`, or tie them with `#[tie(..)]`"
    )]
    TwoOfOneName {
        /// The name.
        name: String,
    },
    /// Run-time axes have no size.
    #[error("{}", unbound(.axes))]
    Unbound {
        /// Each axis, and the first parameter that has it.
        axes: Vec<(String, String)>,
    },
    /// The sizes contradict each other, or an axis's size is impossible.
    #[error("{of}: {source}")]
    Sizes {
        /// The parameter, or `sizes of the model`.
        of: String,
        /// What is wrong.
        source: ExtentError,
    },
    /// An initializer's settings make no sense.
    #[error("parameter `{name}` cannot be filled: {fault}")]
    Init {
        /// The parameter.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// A parameter is larger than memory can address.
    #[error("parameter `{name}` of sizes {sizes:?} is larger than memory")]
    TooLarge {
        /// The parameter.
        name: String,
        /// Its sizes.
        sizes: Vec<usize>,
    },
    /// A name that no parameter has.
    #[error("the model has no parameter `{name}`{hint}")]
    NoSuchParameter {
        /// The name.
        name: String,
        /// The nearest name, as the end of a sentence.
        hint: String,
    },
    /// A pattern that no parameter's name matches.
    #[error("no parameter matches `{pattern}`{hint}")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// What may have been meant, as the end of a sentence.
        hint: String,
    },
    /// Values for a parameter are too many or too few.
    #[error("parameter `{name}` {shape} holds {expected} values, but {found} are given")]
    Count {
        /// The parameter.
        name: String,
        /// Its shape in axis names.
        shape: String,
        /// How many it holds.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An array for a parameter has other sizes.
    #[error("parameter `{name}` is {shape} of sizes {expected:?}, but the array's are {found:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape in axis names.
        shape: String,
        /// Its sizes.
        expected: Vec<usize>,
        /// The array's sizes.
        found: Vec<usize>,
    },
    /// Values for a parameter are of another storage.
    #[error("parameter `{name}` holds {expected}, not {found}")]
    DType {
        /// The parameter.
        name: String,
        /// What it holds.
        expected: crate::graph::DType,
        /// What was asked for or given.
        found: crate::graph::DType,
    },
    /// A variable has no value: it is no part of the model.
    #[error("the variable is no part of this model; a parameter's value is in the model that was made from its module")]
    NotOfThisModel,
    /// A checkpoint and a model differ.
    #[error(transparent)]
    Mismatch(#[from] Box<Mismatch>),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

fn unbound(axes: &[(String, String)]) -> String {
    let list: Vec<String> = axes.iter().map(|(axis, of)| format!("`{axis}` (of `{of}`)")).collect();
    let first = axes.first().map_or("", |a| a.0.as_str());
    format!(
        "{} bound at run time and {} no size: {}; give sizes with `Sizes::new().with::<{first}>(..)`",
        if axes.len() == 1 { "an axis is" } else { "axes are" },
        if axes.len() == 1 { "has" } else { "have" },
        list.join(", ")
    )
}
