//! Nothing after the equals sign.

use mobilis::prelude::*;

axes! {
    pub Hidden = ;
    pub Time;
}

pub fn f(x: Tensor![Time, Hidden]) -> Tensor![Time, Hidden] {
    x
}
