//! Nothing is dropped.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden]) -> Tensor![Hidden, Batch] {
    rearrange!(x[b t h] => [h b])
}
