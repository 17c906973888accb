//! Every axis is kept.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time]) -> Tensor![Time, Batch] {
    reduce!(sum: x[b t] => [t b])
}
