//! Two run-time axes may differ.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

axes! {
    Source;
}

pub fn f(x: Tensor![Batch, Time]) -> Tensor![Batch, Source] {
    x.relabel()
}
