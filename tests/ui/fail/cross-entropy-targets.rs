//! Targets are indices, not probabilities.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn loss(logits: Tensor![Batch, Time, Hidden], targets: Tensor![Batch, Time; Probs]) -> Tensor![] {
    logits.cross_entropy(targets)
}
