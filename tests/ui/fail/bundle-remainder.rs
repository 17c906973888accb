//! A default that the sizes of an instance do not allow.

use mobilis::prelude::*;

axes! {
    pub trait LlamaAxes { Vocab, Hidden, Heads, HeadDim = Hidden / Heads }
    pub struct Small: LlamaAxes { Vocab = 256, Hidden = 130, Heads = 4 }
}
