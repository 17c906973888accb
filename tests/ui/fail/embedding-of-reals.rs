//! An embedding is looked up by indices.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn f(x: Tensor![Batch, Time], table: Tensor![Ffn, Hidden]) -> Tensor![Batch, Time, Hidden] {
    x.embedding(table)
}
