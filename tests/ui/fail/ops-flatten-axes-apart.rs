//! Axes merged that do not lie next to each other.

use mobilis::prelude::*;

axes! {
    pub Height = 8;
    pub Channels = 3;
    pub Width = 8;
}

pub fn pixels(x: Tensor![Height, Channels, Width]) -> Tensor![Height * Width, Channels] {
    x.flatten(Height, Width)
}
