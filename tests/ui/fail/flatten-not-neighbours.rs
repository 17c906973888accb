//! Only neighbouring axes are merged.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch * Hidden, Time] {
    x.flatten(Batch, Hidden)
}
