//! A wrong edge inside nested calls.

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
        features: fn(Array![Samples; AudioSignal<16000>]) -> Array![Frames, Mels; MelSpectrogram],
        search: fn(Array![Frames, Vocab; LogProbs]) -> String,
    }
    fn run(path: String) -> String {
        search(features(decode(path)))
    }
}
