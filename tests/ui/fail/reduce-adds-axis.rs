//! A new axis.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time]) -> Tensor![Batch, Hidden] {
    reduce!(sum: x[b t] => [b Hidden])
}
