//! Indices and reals do not mix.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(ids: Tensor![Batch; TokenId], x: Tensor![Batch]) -> Tensor![Batch] {
    x + ids
}
