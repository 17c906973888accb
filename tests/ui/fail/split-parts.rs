//! The parts of a split do not add up.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Ffn]) -> (Tensor![Batch, Hidden], Tensor![Batch, Hidden]) {
    x.split(Ffn, Hidden, Hidden)
}
