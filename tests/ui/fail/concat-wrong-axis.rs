//! Concatenation along time of tensors whose widths differ.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Past, Hidden], y: Tensor![Batch, Time, Ffn]) -> Tensor![Batch, Past + Time, Hidden] {
    x.concat(Past, y, Time)
}
