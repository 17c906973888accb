//! A loss compares real numbers, not indices.

use mobilis::prelude::*;

axes! {
    Batch;
    Past;
    Time;
    Hidden = 64;
    Ffn = 256;
}

pub fn loss(ids: Tensor![Batch, Time; TokenId], targets: Tensor![Batch, Time; TokenId]) -> Tensor![] {
    ids.mse_loss(targets)
}
