//! A width mismatch deep in a model fails as fast as anywhere.

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

axes! { Other = 64; }

type Block<H> = (RmsNorm<H>, SelfAttention<H, Heads, HeadDim>, RmsNorm<H>, Mlp<H, Ffn>);
type Four<H> = (Block<H>, Block<H>, Block<H>, Block<H>);
type Net = (Four<Hidden>, Four<Hidden>, (Four<Hidden>, Four<Hidden>, Four<Other>), Four<Hidden>);

pub fn f(net: &Net, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
    net.forward(x)
}
