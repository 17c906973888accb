//! A default that divides exactly, in an instance whose sizes are bound at run time.

use mobilis::prelude::*;

axes! {
    pub trait LlamaAxes { Vocab, Hidden, Heads, HeadDim = Hidden / Heads }
    pub struct Any: LlamaAxes;
}
