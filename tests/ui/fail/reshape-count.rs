//! Reshaping keeps the number of values.

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
    Wide = 17;
}

pub fn split(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Heads, Wide] {
    x.reshape()
}
