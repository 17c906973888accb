//! Concatenation along an axis that the tensor does not have.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Past, Hidden], y: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Past + Time, Hidden] {
    x.concat(Time, y, Past)
}
