//! Axes are types.

use mobilis::prelude::*;

axes! {
    pub batch;
    pub head_dim = 64;
}

pub fn f(x: Tensor![Batch, HeadDim]) -> Tensor![Batch, HeadDim] {
    x
}
