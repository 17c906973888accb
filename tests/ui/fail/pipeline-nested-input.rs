//! A pipeline in the place of a stage that takes something else.

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

pipeline! {
    pub struct Outer {
        listen: fn(Array![Frames, Mels; LogProbs]) -> Array![Frames, Hidden; Encoded],
    }
    fn run(mel: Array![Frames, Mels; LogProbs]) -> Array![Frames, Hidden; Encoded] {
        listen(mel)
    }
}

pub fn f(listen: Listen) -> Outer {
    Outer::new(listen)
}
