//! Two arguments of one shape but for the names.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

axes! {
    Source;
}

fn attend(q: Tensor![Batch, Time, Hidden], k: Tensor![Batch, Source, Hidden]) -> Tensor![Batch, Time, Source] {
    einsum!(q[b t h] * k[b s h] => [b t s])
}

pub fn f(q: Tensor![Batch, Time, Hidden], k: Tensor![Batch, Source, Hidden]) -> Tensor![Batch, Time, Source] {
    attend(k, q)
}
