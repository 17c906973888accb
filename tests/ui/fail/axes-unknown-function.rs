//! Only floor and ceil round.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Frames = round(Samples / 160);
    pub Chunks = flor(Samples / 160);
}
