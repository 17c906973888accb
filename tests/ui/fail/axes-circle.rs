//! Axes defined by each other.

use mobilis::prelude::*;

axes! {
    pub Hidden = Heads * HeadDim;
    pub Heads = floor(Hidden / 64);
    pub HeadDim = 64;
}
