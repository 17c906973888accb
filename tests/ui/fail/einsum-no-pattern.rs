//! An operand without its axes.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(q: Tensor![Batch, Time], k: Tensor![Time]) -> Tensor![Batch] {
    einsum!(q[b t] * k => [b])
}
