//! Transforms: functions from graphs to graphs, each callable, testable and printable alone.
//!
//! [`grad`], [`precision`] and [`prune`] serve every device. What precedes binding on the CPU
//! ([`optimize`](crate::devices::cpu::optimize)), in this order:
//!
//! 1. [`simplify`] drops what changes nothing and computes with constants;
//! 2. [`common`] joins nodes that compute the same;
//! 3. [`spectrum`] squares and filters spectra where they are made;
//! 4. [`head`] joins a projection onto classes with its loss, so that logits are never whole;
//! 5. [`products`] joins matrix products: several results of one left side, sums that accumulate;
//! 6. [`fuse`] makes chains of elementwise operations, and computes again what is cheaper to
//!    compute than to keep;
//! 7. [`epilogue`] runs chains on blocks of a product while these are in cache;
//! 8. [`siblings`] joins chains that read the same values.
//!
//! What is contracted with a table that is mostly zeros (`bands`) is no product for these.
//!
//! [`order`] restores the order in which nodes come after their inputs, for transforms that
//! break it.

pub(crate) mod bands;
pub mod common;
pub mod epilogue;
pub mod fuse;
pub mod grad;
pub mod head;
pub mod order;
pub mod precision;
pub mod products;
pub mod prune;
mod rewrite;
pub mod siblings;
pub mod simplify;
pub mod spectrum;
