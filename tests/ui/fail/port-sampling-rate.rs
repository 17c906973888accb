//! 8 kHz audio into a port for 16 kHz.

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

pub fn f(features: &Features, x: Tensor![Batch, Time; AudioSignal<8000>]) -> Tensor![Batch, Time, Hidden; MelSpectrogram] {
    features.forward(x)
}
