//! The forms of tensor types.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub trait Sizes {
    type Width: Axis;
}

pub fn scalar(x: Tensor![]) -> Tensor![;Real] {
    x
}
pub fn literal(x: Tensor![Batch, 3]) -> Tensor![Batch, 1 + 2] {
    x.relabel()
}
pub fn path<S: Sizes>(x: Tensor![S::Width, <S as Sizes>::Width,]) -> Tensor![S::Width, S::Width] {
    x
}
pub fn derived(x: Tensor![2 * Hidden, Conv<Time, 3, 2, 1>, floor(Time / 2)]) -> Tensor![floor(Time / 2)] {
    x.sum(Conv::<Time, 3, 2, 1>::AXIS).sum(<Prod<Const<2>, Hidden>>::AXIS)
}
pub fn element(x: Tensor![Batch; Lengths<Time>], y: Tensor![; TokenId]) {
    let _ = (x, y);
}
pub fn inferred(x: Tensor![Batch, Time]) -> Tensor![Batch, Time] {
    let y: Tensor![Batch, _] = x;
    y
}
pub fn eight(x: Tensor![1, 2, 3, 4, 5, 6, 7, 8]) -> Tensor![1, 2, 3, 4, 5, 6, 7, 8] {
    x
}
