//! An image in patches.

use mobilis::prelude::*;

axes! {
    Batch;
    Height = 32;
    Width = 32;
    Rows = 8;
    Columns = 8;
}

pub fn patches(x: Tensor![Batch, 3, Height, Width]) -> Tensor![Batch, Rows * Columns, 4 * 4 * 3] {
    rearrange!(x[b 3 (Rows p) (Columns q)] => [b (Rows Columns) (p q 3)])
}
