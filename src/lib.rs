#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

// The examples that `gallery` draws, and code that the macros write, say `mobilis::..`.
extern crate self as mobilis;

pub use mobilis_runtime::*;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
pub mod demo;
#[cfg(feature = "cli")]
pub mod gallery;
