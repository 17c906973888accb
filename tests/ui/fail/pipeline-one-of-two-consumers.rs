//! One stage takes what another gives, the third does not.

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
        level: fn(Array![Frames; AudioSignal<16000>]) -> f32,
    }
    fn run(path: String) -> (mel: Array![Frames, Mels; MelSpectrogram], level: f32) {
        let audio = decode(path);
        let mel = features(audio);
        (mel, level(audio))
    }
}
