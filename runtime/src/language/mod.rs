//! The typed language: axes, shapes and elements as Rust types.
//!
//! Nothing in this folder holds data or builds graphs. It is what the compiler sees: an
//! [`Axis`](axis::Axis) is a type with a name and a fingerprint, a [`Shape`](shape::Shape) is a
//! tuple of axes, an [`Element`](element::Element) says what the numbers of a tensor mean.
//! The typed handles in [`crate::tensor`] carry these types; everything below them is untyped.

pub mod axis;
pub mod element;
pub mod elements;
pub mod message;
pub mod proof;
pub mod shape;
pub mod window;
