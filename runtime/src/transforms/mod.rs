//! Transforms: functions from graphs to graphs, each callable, testable and printable alone.

pub mod common;
pub mod epilogue;
pub mod fuse;
pub mod grad;
pub mod order;
pub mod products;
pub mod prune;
mod rewrite;
pub mod siblings;
pub mod simplify;
pub mod spectrum;
