//! All mistakes are reported at once.

use mobilis::prelude::*;

axes! {
    pub Hidden = 130;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Hidden = 4;
    pub time;
    pub Kernel = 3 - 4;
}
