//! Handwritten kernels over slices, sizes and strides. No graph, no modules.
//!
//! [`cpu`] holds one file a family of operations, [`pool`] the threads that they share, [`fp8`]
//! numbers of eight bits, and [`memory`] the checked access to a program's buffers. All `unsafe` code of the CPU device is
//! in this crate.

#![warn(missing_docs)]

pub mod bytes;
pub mod cpu;
pub mod fp8;
pub mod large;
pub mod memory;
pub mod philox;
pub mod pool;
