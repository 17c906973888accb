//! Lengths in samples where lengths in frames are meant.

use mobilis::prelude::*;

axes! {
    Batch;
    Samples;
    Frames = floor(Samples / 160) + 1;
}

#[neural_module]
pub struct Pool;

#[neural_module]
impl Pool {
    pub fn forward(&self, x: Tensor![Batch, Frames], lengths: Tensor![Batch; Lengths<Frames>]) -> Tensor![Batch; Lengths<Frames>] {
        let _ = x;
        lengths
    }
}

pub fn f(pool: &Pool, x: Tensor![Batch, Frames], lengths: Tensor![Batch; Lengths<Samples>]) -> Tensor![Batch; Lengths<Frames>] {
    pool.forward(x, lengths)
}
