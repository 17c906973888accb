//! A sequence, as calls inside calls; arrays of a sub-element and of the plain base enter ports.

use mobilis::prelude::*;

axes! {
    Samples;
    Frames = floor(Samples / 160) + 1;
    Mels = 80;
}

pipeline! {
    pub struct Listen {
        decode: fn(std::path::PathBuf) -> Array![Samples; AudioSignal<16000>],
        features: fn(Array![Samples; AudioSignal<16000>]) -> Array![Frames, Mels; MelSpectrogram],
        smooth: fn(Array![Frames, Mels; Spectrogram]) -> Array![Frames, Mels],
        show: fn(Array![Frames, Mels; MelSpectrogram]) -> String,
    }
    fn run(path: std::path::PathBuf) -> String {
        show(smooth(features(decode(path))))
    }
}
