//! Mobilis.
pub use mobilis_runtime::*;
