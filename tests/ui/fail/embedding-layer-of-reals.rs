//! An embedding layer takes indices.

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

pub fn f(embed: &Embedding<Vocab, Hidden>, x: Tensor![Batch, Time]) -> Tensor![Batch, Time, Hidden] {
    embed.forward(x)
}
