//! Gates split off a projection that is one value too short.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Projected = 191;
    pub Value = 128;
    pub Gate = 64;
}

pub fn cut(x: Tensor![Batch, Projected]) -> (Tensor![Batch, Value], Tensor![Batch, Gate]) {
    x.split(Projected, Value, Gate)
}
