//! The proof speaks of every run-time size.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, 2 * Time, Hidden] {
    x.reshape()
}
