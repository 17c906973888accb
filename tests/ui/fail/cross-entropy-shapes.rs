//! Targets of another shape than the logits' rows.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn loss(logits: Tensor![Batch, Time, Hidden], targets: Tensor![Batch, Past; TokenId]) -> Tensor![] {
    logits.cross_entropy(targets)
}
