//! Attention in a tuple, after a layer of another width.

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

type Net = (Linear<Hidden, Ffn>, SelfAttention<Hidden, Heads, HeadDim>, Linear<Hidden, Vocab>);

pub fn f(net: &Net, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Vocab] {
    net.forward(x)
}
