//! A window that does not fit where it starts: all three sizes are static.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Bands = 80;
    pub Window = 32;
}

pub fn cut(x: Tensor![Batch, Bands]) -> Tensor![Batch, Window] {
    x.slice(Bands, Window, Const::<49>)
}
