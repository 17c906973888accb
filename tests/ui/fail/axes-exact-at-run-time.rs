//! Exact division of a size that is bound at run time.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Frames = Samples / 160;
}
