//! The arguments of a stage in the wrong order.

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
        decode: fn(String) -> Array![Samples; AudioSignal<16000>],
        features: fn(Array![Samples; AudioSignal<16000>]) -> (mel: Array![Frames, Mels; MelSpectrogram], length: usize),
        encoder: fn(mel: Array![Frames, Mels; MelSpectrogram], length: usize) -> String,
    }
    fn run(path: String) -> String {
        let (mel, length) = features(decode(path));
        encoder(length, mel)
    }
}
