//! What the typed shell of a pipeline asks of types.

use super::core::Value;
use crate::array::Array;
use crate::language::element::{Element, Is};
use crate::language::shape::Shape;

/// A pipeline takes `In`: its input, or the tuple of all of them, or of those that must be given.
#[diagnostic::on_unimplemented(
    message = "the pipeline `{Self}` does not take `{In}`",
    label = "this pipeline has other inputs",
    note = "give the inputs in the order of `fn run`, several as a tuple: either all, optional ones as `Option`, or those alone that must be given"
)]
pub trait Inputs<In> {
    /// One value for each input.
    fn pack(input: In) -> Vec<Value>;
}

/// What several stages may take: anything that is `Clone`.
#[diagnostic::on_unimplemented(
    message = "several stages take this value, and `{Self}` is not `Clone`",
    label = "`{Self}` is needed again after this",
    note = "let one stage take it and give it on, or let it flow as `Arc<{Self}>`"
)]
pub trait Branch {
    /// A copy.
    fn branch(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> Branch for T {
    fn branch(&self) -> T {
        self.clone()
    }
}

/// What a trace can keep: anything that is `Clone`. The lifetime makes it a condition on callers.
#[diagnostic::on_unimplemented(
    message = "a trace cannot keep `{Self}`",
    label = "`{Self}` is not `Clone`",
    note = "a trace holds copies of all named intermediate results"
)]
pub trait Keep<'a>: Sized {
    /// A copy.
    fn keep(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> Keep<'_> for T {
    fn keep(&self) -> T {
        self.clone()
    }
}

/// A shape is `T`. A condition rather than the type itself, so that a wrong edge fails as a condition, in
/// the edge's own words.
pub trait Same<T: Shape>: Shape + Sized {
    /// The array as the port declares it.
    fn port<E: Is<F>, F: Element>(array: Array<Self, E>) -> Array<T, F>;
}

#[diagnostic::do_not_recommend]
impl<T: Shape> Same<T> for T {
    fn port<E: Is<F>, F: Element>(array: Array<T, E>) -> Array<T, F> {
        array.port()
    }
}
