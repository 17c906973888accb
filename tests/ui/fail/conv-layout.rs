//! Frames where channels are meant.

use mobilis::prelude::*;

axes! {
    Batch;
    Frames;
    Mels = 80;
    Hidden = 96;
    Half = ceil(Frames / 2);
}

pub fn f(x: Tensor![Batch, Frames, Mels], w: Tensor![Hidden, Mels, 3]) -> Tensor![Batch, Hidden, Half] {
    x.conv1d(w, (), Sliding::<2, 1>).relabel()
}
