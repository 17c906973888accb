//! A convolution whose weight expects other channels.

use mobilis::prelude::*;

axes! {
    Batch;
    Frames;
    Mels = 80;
    Hidden = 96;
    Half = ceil(Frames / 2);
}

pub fn f(x: Tensor![Batch, Mels, Frames], w: Tensor![Hidden, Hidden, 3]) -> Tensor![Batch, Hidden, Frames] {
    x.conv1d_same(w, (), Const::<1>)
}
