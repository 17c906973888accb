//! Equal sizes do not make equal axes.

use mobilis::prelude::*;

axes! {
    Rows = 64;
    Columns = 64;
}

pub fn transpose(x: Tensor![Rows, Columns]) -> Tensor![Columns, Rows] {
    x
}
