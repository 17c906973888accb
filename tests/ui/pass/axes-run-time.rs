//! Axes bound at run time.

use mobilis::prelude::*;

axes! {
    /// Sequences.
    pub Batch;
    Time;
    pub(crate) Heads;
}

pub fn f(x: Tensor![Batch, Time, Heads]) -> Tensor![Batch, Time, Heads] {
    x
}
