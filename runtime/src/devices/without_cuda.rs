//! Stands in for GPUs in builds without the feature `cuda`: whoever asks for one is told so.

use super::Device;

/// An operation that runs on the host in a program for a GPU.
#[derive(Clone, PartialEq, Debug)]
pub struct Fallback {
    /// The operation.
    pub op: &'static str,
    /// The module.
    pub location: String,
    /// Why.
    pub reason: String,
}

/// A GPU: there is none.
pub enum Gpu {}

/// Refuses.
///
/// # Errors
/// Always.
pub fn open(device: Device) -> Result<Gpu, String> {
    Err(format!("`{device}` is not part of this build: enable the feature `cuda`"))
}
