//! Queries and keys of different widths.

use mobilis::prelude::*;

use mobilis::ops::attention::attention;

axes! {
    Batch;
    Past;
    Time;
    Heads = 8;
    KvHeads = 2;
    HeadDim = 16;
}

axes! { Wide = 32; }

pub fn f(
    q: Tensor![Batch, Time, Heads, HeadDim],
    k: Tensor![Batch, Time, Heads, Wide],
    v: Tensor![Batch, Time, Heads, HeadDim],
) -> Tensor![Batch, Time, Heads, HeadDim] {
    attention(q, k, v).output()
}
