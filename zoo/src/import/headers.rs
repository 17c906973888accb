//! The tensors of a source without their values.

use mobilis_runtime::checkpoint::{CheckpointError, Raw, Source, TensorInfo};
use std::path::Path;

/// The names, sizes and encodings of a source's tensors. A model that is made of it is checked as
/// any other, and costs no memory: it has no values.
#[derive(Debug)]
pub struct Headers(pub Box<dyn Source>);

impl Source for Headers {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn names(&self) -> Vec<&str> {
        self.0.names()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.info(name)
    }
    fn has_values(&self) -> bool {
        false
    }
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.0.raw(name)
    }
}
