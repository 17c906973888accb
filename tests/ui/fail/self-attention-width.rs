//! A width that is not the attention's.

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

pub fn f(attn: &SelfAttention<Hidden, Heads, HeadDim>, x: Tensor![Batch, Time, Ffn]) -> Tensor![Batch, Time, Ffn] {
    attn.forward(x)
}
