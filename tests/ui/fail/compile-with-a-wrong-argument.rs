//! The function that is compiled uses its arguments rightly.

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

#[neural_module]
pub struct Net {
    head: Linear<Hidden, Vocab>,
}

pub fn f(net: &Net, x: Tensor![Batch, Time, Ffn], targets: Tensor![Batch, Time; TokenId]) -> Tensor![] {
    net.head.forward(x).cross_entropy(targets)
}
