//! Softmax over an axis that is not there.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Time]) -> Tensor![Batch, Time] {
    x.softmax(Hidden)
}
