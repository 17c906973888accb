//! Heads that do not divide the width.

use mobilis::prelude::*;

axes! {
    pub Hidden = 130;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
}
