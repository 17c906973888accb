//! An axis split into two whose product it is not.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

axes! { Heads = 5; HeadDim = 12; }

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Heads, HeadDim] {
    x.unflatten(Hidden, Heads, HeadDim)
}
