//! Halving and doubling loses odd lengths.

use mobilis::prelude::*;

axes! {
    Time;
    Half = floor(Time / 2);
}

pub fn f(x: Tensor![2 * Half]) -> Tensor![Time] {
    x.relabel()
}
