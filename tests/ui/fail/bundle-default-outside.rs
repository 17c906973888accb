//! A default speaks of the bundle's own axes.

use mobilis::prelude::*;

axes! {
    pub Outer = 3;
    pub trait LlamaAxes { Hidden, Ffn = Outer * Hidden }
}
