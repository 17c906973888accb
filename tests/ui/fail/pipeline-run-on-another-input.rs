//! A pipeline is run on something that it does not take.

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
    fn run(path: String) -> Array![Frames, Mels; MelSpectrogram] {
        let audio = decode(path);
        features(audio)
    }
}

pub fn f(listen: &Listen, audio: Array![Samples; AudioSignal<16000>]) {
    let _ = listen.run(audio);
}
