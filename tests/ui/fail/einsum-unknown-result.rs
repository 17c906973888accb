//! An axis that no operand has.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(q: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time] {
    einsum!(q[batch time hidden] => [batch tiem])
}
