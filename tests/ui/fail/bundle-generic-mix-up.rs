//! In a model over any axes, two axes of the bundle are not one.

use mobilis::prelude::*;

axes! {
    Time;
    pub trait LlamaAxes { Hidden, Ffn }
}

pub fn f<A: LlamaAxes>(x: Tensor![Time, A::Hidden]) -> Tensor![Time, A::Ffn] {
    x
}
