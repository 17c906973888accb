//! A closure that takes 8 kHz, for a stage that takes 16.

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

pub fn f(decode: impl Fn(String) -> Result<Array![Samples; AudioSignal<16000>], ArrayError> + Send + Sync + 'static) -> Listen {
    Listen::new(decode, pure(|x: Array![Samples; AudioSignal<8000>]| -> Array![Frames, Mels; MelSpectrogram] { unimplemented!() }))
}
