//! any and all are for masks.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time]) -> Tensor![Batch; Mask] {
    reduce!(any: x[b t] => [b])
}
