//! The pipeline promises another type than its last stage gives.

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
    }
    fn run(path: String) -> Array![Frames, Mels; LogProbs] {
        let audio = decode(path);
        features(audio)
    }
}
