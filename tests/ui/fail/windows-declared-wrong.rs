//! Frames of 400 samples, 160 apart: there are fewer than samples / 160.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Frames = floor(Samples / 160);
}

pub fn frames(x: Tensor![Samples]) -> Tensor![Frames, 400] {
    x.unfold(Samples, Windows::<400, 160>).relabel()
}
