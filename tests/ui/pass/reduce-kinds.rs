//! Every reduction.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Time, Hidden], m: Tensor![Batch, Time; Mask]) {
    let _: Tensor![Batch, Hidden] = reduce!(sum: x[b t h] => [b h]);
    let _: Tensor![Hidden, Batch] = reduce!(mean: x[b t h] => [h b]);
    let _: Tensor![] = reduce!(max: x[b t h] => []);
    let _: Tensor![Time] = reduce!(min: x[_ t _] => [t]);
    let _: Tensor![Batch, Time] = reduce!(var: x[b t Hidden] => [b t]);
    let _: Tensor![Batch, Time] = reduce!(logsumexp: x[b t h] => [b t]);
    let _: Tensor![Batch; Mask] = reduce!(any: m[b t] => [b]);
    let _: Tensor![Batch; Mask] = reduce!(all: m[b _] => [b]);
}
