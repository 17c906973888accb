//! Stands in for the reference device in builds without the feature `reference`: programs that are
//! asked to run on it say so. Its arrays remain, for kernels share their arithmetic of strides.

#[path = "reference/array.rs"]
pub mod array;

use crate::graph::{Graph, Sizes, Value};
pub use array::RefArray;

/// Every value of a graph after a run: there is none.
pub enum Values {}

impl Values {
    /// One value.
    pub fn get(&self, _: Value) -> &RefArray {
        match *self {}
    }
}

/// Refuses to run.
///
/// # Errors
/// Always.
pub fn run(_: &Graph, _: &Sizes, _: &[RefArray], _: &[RefArray]) -> Result<Values, String> {
    Err("the reference device is not part of this build: enable the feature `reference`".into())
}
