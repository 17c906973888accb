//! Division by zero.

use mobilis::prelude::*;

axes! {
    pub Time;
    pub Frames = floor(Time / 0);
}
