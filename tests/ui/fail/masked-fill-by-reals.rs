//! Reals are not masks.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Time], mask: Tensor![Time]) -> Tensor![Batch, Time] {
    x.masked_fill(mask, 0.0)
}
