//! Samples where frames are meant.

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
        encoder: fn(String) -> Array![Samples; Probs],
        head: fn(Array![Frames; Probs]) -> String,
    }
    fn run(path: String) -> String {
        let states = encoder(path);
        head(states)
    }
}
