//! floor and ceil round a division.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Frames = floor(Samples);
}
