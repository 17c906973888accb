//! Logits are real numbers.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn loss(ids: Tensor![Batch, Time, Hidden; Index], targets: Tensor![Batch, Time; TokenId]) -> Tensor![] {
    ids.cross_entropy(targets)
}
