//! A program for batches whose items are not what flows.

use mobilis::pipeline::Padded;
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

pub fn f(program: Program<Padded<(Batch, Samples, Mels), MelSpectrogram>, Padded<(Batch, Frames, Hidden), Encoded>>) -> Listen {
    Listen::new(program.per_item())
}
