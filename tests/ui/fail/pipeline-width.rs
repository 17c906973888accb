//! Another width than the head takes, by name and by size.

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
        encoder: fn(String) -> Array![Frames, Mels; Encoded],
        head: fn(Array![Frames, Hidden; Encoded]) -> String,
    }
    fn run(path: String) -> String {
        let states = encoder(path);
        head(states)
    }
}
