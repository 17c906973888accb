//! A residual connection around a layer that changes the width.

use mobilis::nn::*;
use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Vocab = 256;
    Hidden = 64;
    Ffn = 256;
    Heads = 4;
    KvHeads = 2;
    Groups = 2;
    HeadDim = 16;
}

pub fn f(up: &Linear<Hidden, Ffn>, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    x + up.forward(x)
}
