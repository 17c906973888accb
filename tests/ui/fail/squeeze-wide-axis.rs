//! Only axes of size one are dropped.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch] {
    x.squeeze(Hidden)
}
