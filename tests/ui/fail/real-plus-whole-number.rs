//! A whole number added to real values: numbers are written as what they are.

use mobilis::prelude::*;

axes! { pub Time; }

pub fn next(x: Tensor![Time]) -> Tensor![Time] {
    x + 1
}
