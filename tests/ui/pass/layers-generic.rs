//! A model over any axes, in two sizes.

use mobilis::nn::*;
use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    pub trait TinyAxes { Vocab, Hidden = Heads * HeadDim, Heads, HeadDim, Ffn = 4 * Hidden }
    pub struct Small: TinyAxes { Vocab = 256, Heads = 4, HeadDim = 16 }
    pub struct Any: TinyAxes;
}

#[neural_module]
pub struct Model<A: TinyAxes> {
    embed: Embedding<A::Vocab, A::Hidden>,
    attn: SelfAttention<A::Hidden, A::Heads, A::HeadDim>,
    mlp: Mlp<A::Hidden, A::Ffn>,
    head: Linear<A::Hidden, A::Vocab>,
}

#[neural_module]
impl<A: TinyAxes> Model<A> {
    pub fn forward(&self, ids: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, A::Vocab] {
        let x = self.embed.forward(ids);
        let x = x + self.attn.forward(x);
        self.head.forward(self.mlp.forward(x))
    }
}

pub fn f(small: &Model<Small>, any: &Model<Any>, ids: Tensor![Batch, Time; TokenId]) {
    let _ = small.forward(ids);
    let _ = any.call(ids);
}
