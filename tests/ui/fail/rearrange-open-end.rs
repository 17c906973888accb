//! Nothing says how the axis is split.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Hidden]) {
    let _ = rearrange!(x[b (h d)] => [b h d]);
}
