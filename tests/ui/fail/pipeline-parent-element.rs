//! A spectrogram of any scale for a stage that takes a mel spectrogram.

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
        encoder: fn(String) -> Array![Frames, Mels; Spectrogram],
        head: fn(Array![Frames, Mels; MelSpectrogram]) -> String,
    }
    fn run(path: String) -> String {
        let states = encoder(path);
        head(states)
    }
}
