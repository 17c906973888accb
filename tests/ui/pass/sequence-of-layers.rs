//! Layers in tuples, nested.

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

type Block = (RmsNorm<Hidden>, SelfAttention<Hidden, Heads, HeadDim>, RmsNorm<Hidden>, Mlp<Hidden, Ffn>);
type Four = (Block, Block, Block, Block);
type Net = (Embedding<Vocab, Hidden>, Four, (Four, Four), Linear<Hidden, Vocab>);

pub fn f(net: &Net, ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, Vocab] {
    net.forward(ids)
}
