//! A parent is not its refinement.

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
pub struct Vocoder;

#[neural_module]
impl Vocoder {
    pub fn forward(&self, mel: Tensor![Batch, Time, Hidden; MelSpectrogram]) -> Tensor![Batch, Time, Hidden; MelSpectrogram] {
        mel
    }
}

pub fn f(vocoder: &Vocoder, x: Tensor![Batch, Time, Hidden; Spectrogram]) -> Tensor![Batch, Time, Hidden; MelSpectrogram] {
    vocoder.forward(x)
}
