//! Arithmetic on sizes that are bound at run time.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Frames = floor(Samples / 160) + 1;
    pub Chunks = ceil(Frames / 8);
    pub Twice = 2 * Frames;
}

pub fn f(x: Tensor![2 * Frames]) -> Tensor![Twice] {
    x.relabel()
}
