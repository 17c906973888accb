//! Transforms: functions from graphs to graphs, each callable, testable and printable alone.

pub mod fuse;
pub mod grad;
pub mod prune;
