//! A program that takes other axes than its place.

use mobilis::prelude::*;

axes! {
    Batch;
    Samples;
    Frames = floor(Samples / 160) + 1;
    Mels = 80;
    Hidden = 256;
    Vocab = 100;
}

pipeline! {
    pub struct Listen {
        encoder: fn(Array![Frames, Mels; MelSpectrogram]) -> Array![Frames, Hidden; Encoded],
    }
    fn run(mel: Array![Frames, Mels; MelSpectrogram]) -> Array![Frames, Hidden; Encoded] {
        encoder(mel)
    }
}

pub fn f(program: Program<Tensor![Frames, Hidden], Tensor![Frames, Hidden; Encoded]>) -> Listen {
    Listen::new(program)
}
