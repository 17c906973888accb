//! Mel spectrograms are not log-probabilities.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

#[neural_module]
pub struct Features {
    window: Param![Hidden],
}

#[neural_module]
impl Features {
    pub fn forward(&self, x: Tensor![Batch, Time; AudioSignal<16000>]) -> Tensor![Batch, Time, Hidden; MelSpectrogram] {
        einsum!(x[b t] * self.window.get()[h] => [b t h]).assume()
    }
}

#[neural_module]
pub struct Decoder {
    scale: Param![Hidden],
}

#[neural_module]
impl Decoder {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden; LogProbs]) -> Tensor![Batch, Time] {
        reduce!(sum: x[b t h] => [b t])
    }
}

pub fn f(net: &(Features, Decoder), x: Tensor![Batch, Time; AudioSignal<16000>]) -> Tensor![Batch, Time] {
    net.forward(x)
}
