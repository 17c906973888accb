//! Axes name themselves in calls.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Hidden] {
    x.sum(Time)
}

pub fn g<A: Axis>(x: Tensor![Batch, A]) -> Tensor![Batch] {
    x.sum(A::AXIS)
}
