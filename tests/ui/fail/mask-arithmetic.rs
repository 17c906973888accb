//! Masks are not added.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(a: Tensor![Batch; Mask], b: Tensor![Batch; Mask]) -> Tensor![Batch; Mask] {
    a + b
}
