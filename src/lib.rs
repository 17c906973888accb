#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

// The examples that `gallery` draws, and code that the macros write, say `mobilis::..`.
extern crate self as mobilis;

#[cfg(feature = "import")]
pub use mobilis_import::import_model;
pub use mobilis_runtime::*;
#[cfg(feature = "zoo")]
pub use mobilis_zoo as zoo;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
pub mod demo;
#[cfg(feature = "cli")]
pub mod gallery;
