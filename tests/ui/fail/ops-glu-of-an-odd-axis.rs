//! A gated unit over an axis that is not twice its half.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Both = 130;
    pub Half = 64;
}

pub fn gate(x: Tensor![Batch, Both]) -> Tensor![Batch, Half] {
    x.glu(Both, Half)
}
