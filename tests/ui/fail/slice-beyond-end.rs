//! A slice longer than its axis.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Ffn] {
    x.slice(Hidden, Ffn, 0)
}
