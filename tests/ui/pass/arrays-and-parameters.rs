//! The other types with axes.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Weights {
    pub weight: Param![Hidden, Ffn],
    pub mean: Buffer![Hidden],
    pub table: Param![Hidden; Real],
}

pub fn f(w: &Weights, x: Array![Batch, Time; TokenId]) -> Array![Batch, Time; TokenId] {
    let _: Tensor![Hidden, Ffn] = w.weight.get();
    let _: Tensor![Hidden] = w.mean.get();
    x
}
