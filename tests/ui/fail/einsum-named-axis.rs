//! A named axis that the operand does not have.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time] {
    einsum!(x[b t Ffn] => [b t])
}
