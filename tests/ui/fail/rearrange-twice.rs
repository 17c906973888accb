//! An axis twice in the input.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Batch]) -> Tensor![Batch] {
    rearrange!(x[b b] => [b])
}
