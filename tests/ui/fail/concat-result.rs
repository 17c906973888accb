//! The result of concatenation is the sum of the axes, not one of them.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Past, Hidden], y: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    x.concat(Past, y, Time)
}
