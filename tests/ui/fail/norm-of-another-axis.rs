//! A norm over an axis that is not last.

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

pub fn f(norm: &RmsNorm<Hidden>, x: Tensor![Batch, Hidden, Time]) -> Tensor![Batch, Hidden, Time] {
    norm.forward(x)
}
