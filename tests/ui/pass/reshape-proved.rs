//! Proofs for every run-time size.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn split(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Heads, HeadDim] {
    x.reshape()
}
pub fn merge(x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch * Time, Hidden] {
    x.reshape()
}
pub fn halves(x: Tensor![2 * Time]) -> Tensor![Time, 2] {
    x.reshape()
}
pub fn commuted(x: Tensor![Time * Batch]) -> Tensor![Batch * Time] {
    x.relabel()
}
