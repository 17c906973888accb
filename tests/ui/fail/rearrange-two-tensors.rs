//! Several tensors are joined with einsum.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch], y: Tensor![Time]) -> Tensor![Batch, Time] {
    rearrange!(x[b] * y[t] => [b t])
}
