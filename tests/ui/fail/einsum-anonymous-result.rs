//! What is summed away has no place in the result.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(q: Tensor![Batch, Time]) -> Tensor![Batch, Time] {
    einsum!(q[b _] => [b _])
}
