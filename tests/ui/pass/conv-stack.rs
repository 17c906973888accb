//! The length after two strided convolutions, in closed form.

use mobilis::prelude::*;

axes! {
    Frames;
    Subsampled = ceil(Frames / 4);
    Halved = ceil(Frames / 2);
}

pub fn one(x: Tensor![Conv<Frames, 3, 2, 1>]) -> Tensor![Halved] {
    x.relabel()
}
pub fn two(x: Tensor![Conv<Conv<Frames, 3, 2, 1>, 3, 2, 1>]) -> Tensor![Subsampled] {
    x.relabel()
}
pub fn same(x: Tensor![Conv<Frames, 5, 1, 2>]) -> Tensor![Frames] {
    x.relabel()
}
