//! A tensor without the axis that a function takes.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

fn norm(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    x
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Time, Hidden] {
    norm(x)
}
