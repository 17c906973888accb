//! Keys of another model's width joined to a cache: the axis that differs is not the one joined.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Past;
    pub Time;
    pub Hidden = 64;
    pub Width = 64;
}

pub fn append(
    cache: Tensor![Batch, Past, Hidden],
    new: Tensor![Batch, Time, Width],
) -> Tensor![Batch, Past + Time, Hidden] {
    cache.concat(Past, new, Time)
}
