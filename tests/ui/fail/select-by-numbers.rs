//! A choice by numbers, which are neither true nor false.

use mobilis::prelude::*;

axes! { pub Time; }

pub fn choose(x: Tensor![Time], y: Tensor![Time]) -> Tensor![Time] {
    x.select(x, y)
}
