//! Indices bounded by a real number.

use mobilis::prelude::*;

axes! { pub Time; }

pub fn early(x: Tensor![Time; Index]) -> Tensor![Time; Index] {
    x.minimum(3.5)
}
