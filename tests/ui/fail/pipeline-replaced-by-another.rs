//! A stage is replaced by one that takes something else.

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

pub fn f(listen: &mut Listen) {
    listen.set_encoder(pure(|x: Array![Frames, Hidden]| -> Array![Frames, Hidden; Encoded] { x.assume() }));
}
