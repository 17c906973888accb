//! A new name for another size.

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
    Width = 65;
}

pub fn f(x: Tensor![Batch, Hidden]) -> Tensor![Batch, Width] {
    x.relabel()
}
