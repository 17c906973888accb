//! A gated unit splits an axis into two equal parts.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Ffn]) -> Tensor![Batch, Hidden] {
    x.glu(Ffn, Hidden)
}
