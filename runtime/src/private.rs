//! What the code of the macros names: `::mobilis::__private::..`.
//!
//! Not part of the public interface. One place for the macros to look, so that moving a type
//! inside this crate does not break code that was generated for another.

pub use crate::array::Array;
pub use crate::graph::extent::Extent;
pub use crate::graph::trace;
pub use crate::language::axis::{Axis, Ceil, Const, Diff, Floor, Print, Prod, Quot, Rest, Sum, symbol_print};
pub use crate::language::element::{Element, Float, Index, Is, Mask, Real, Truth};
pub use crate::language::message::Message;
pub use crate::language::proof::{difference, exact, factors, holds_one};
pub use crate::module::init::{WithInit, shorthand};
pub use crate::module::param::{Buffer, Param};
pub use crate::module::{MadeByDefault, Member, Module, NeuralModule, Visitor};
pub use crate::ops::{contraction, movement, reduce};
pub use crate::tensor::Tensor;
pub use mobilis_macros::__bundle;

/// What `#[default(..)]` has in scope.
pub mod default_scope {
    pub use crate::module::repeat;
}

/// What `pipeline!` writes.
pub mod pipeline {
    pub use crate::devices::Device;
    pub use crate::pipeline::core::{Call, Core, Edge, Label, Ports, Value, Wiring, erase, peek, restore, slot};
    pub use crate::pipeline::shell::{Branch, Inputs, Keep, Same};
    pub use crate::pipeline::{PipelineError, Stage, Stream, StreamOptions, Traced};
}
