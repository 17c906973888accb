//! The bundle is declared in another module.

use mobilis::prelude::*;

mod family {
    mobilis::axes! {
        pub trait LlamaAxes { Vocab, Hidden, Heads, HeadDim = Hidden / Heads }
    }
}
use family::LlamaAxes;

axes! {
    pub struct Small: LlamaAxes { Hidden = 64, Heads = 4, Hedas = 4 }
}
