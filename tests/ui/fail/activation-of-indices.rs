//! Activations are for reals.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time] {
    ids.gelu()
}
