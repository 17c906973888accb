//! A search along an axis that the tensor does not have.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Time;
    pub Hidden = 8;
}

pub fn best(x: Tensor![Batch, Hidden]) -> Tensor![Batch; Index] {
    x.argmax(Time)
}
