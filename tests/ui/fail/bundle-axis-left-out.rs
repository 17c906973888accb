//! An instance gives every axis.

use mobilis::prelude::*;

axes! {
    pub trait LlamaAxes { Vocab, Hidden, Heads, HeadDim = Hidden / Heads }
    pub struct Small: LlamaAxes { Vocab = 256, Heads = 4 }
}
