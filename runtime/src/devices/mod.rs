//! Devices: how operations are computed.
//!
//! [`reference`](mod@reference) evaluates a graph in `f64` with plain loops: the oracle of every test.
//! [`cpu`] prepares kernels for concrete sizes and runs them on threads. Both take the same
//! operations; neither knows of tensors' types or modules. The reference device is part of builds with
//! the feature `reference`.

pub mod cpu;
#[cfg(feature = "reference")]
pub mod reference;
#[cfg(not(feature = "reference"))]
#[path = "without_reference.rs"]
pub mod reference;

/// Where a model's programs run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Device {
    /// `f32` kernels on all cores.
    #[default]
    Cpu,
    /// `f64` plain loops: the oracle, for checking and debugging. Needs the feature `reference`.
    Reference,
}
