//! An instance gives no other axes.

use mobilis::prelude::*;

axes! {
    pub trait LlamaAxes { Vocab, Hidden, Heads, HeadDim = Hidden / Heads }
    pub struct Small: LlamaAxes { Vocab = 256, Hiden = 64, Hidden = 64, Heads = 4 }
}
