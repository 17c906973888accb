//! The length of a strided convolution, without the padding that was declared.

use mobilis::prelude::*;

axes! {
    Batch;
    Frames;
    Mels = 80;
    Hidden = 96;
    Half = ceil(Frames / 2);
}

pub fn f(x: Tensor![Batch, Mels, Frames], w: Tensor![Hidden, Mels, 3]) -> Tensor![Batch, Hidden, Half] {
    x.conv1d(w, (), Sliding::<2, 0>).relabel()
}
