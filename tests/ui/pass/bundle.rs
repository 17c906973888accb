//! A family of models and three instances.

use mobilis::prelude::*;

axes! {
    /// The axes of a family.
    pub trait LlamaAxes {
        /// Tokens.
        Vocab,
        Hidden,
        Heads,
        HeadDim = Hidden / Heads,
        Ffn = 4 * Hidden,
    }
    /// Small.
    pub struct Small: LlamaAxes { Vocab = 256, Hidden = 64, Heads = 4 }
    pub struct Wide: LlamaAxes { Vocab = 256, Hidden = 64, Heads = 4, Ffn = 8 * Hidden }
    pub struct Any: LlamaAxes { Vocab, Hidden = Heads * HeadDim, Heads, HeadDim }
}

const _: () = {
    assert!(matches!(<Small as LlamaAxes>::HeadDim::SIZE, Some(16)));
    assert!(matches!(<Small as LlamaAxes>::Ffn::SIZE, Some(256)));
    assert!(matches!(<Wide as LlamaAxes>::Ffn::SIZE, Some(512)));
    assert!(<Any as LlamaAxes>::Hidden::SIZE.is_none());
};

pub fn split<A: LlamaAxes>(x: Tensor![A::Hidden]) -> Tensor![A::Heads, A::HeadDim] {
    x.reshape()
}

pub fn use_it(x: Tensor![<Small as LlamaAxes>::Hidden], y: Tensor![<Any as LlamaAxes>::Hidden]) {
    let _ = split::<Small>(x);
    let _ = split::<Any>(y);
}
