//! Axes of two instances differ, even where name and size agree.

use mobilis::prelude::*;

axes! {
    pub trait LlamaAxes { Vocab, Hidden }
    pub struct Small: LlamaAxes { Vocab = 256, Hidden = 64 }
    pub struct Other: LlamaAxes { Vocab = 512, Hidden = 64 }
}

pub fn f(x: Tensor![<Small as LlamaAxes>::Hidden]) -> Tensor![<Other as LlamaAxes>::Hidden] {
    x
}
