//! What the typed shell of a pipeline asks of types.

use super::core::Value;

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
