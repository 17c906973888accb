//! A value that may be missing for a port that needs one.

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
        encoder: fn(String) -> Option<Array![Frames]>,
        head: fn(Array![Frames]) -> String,
    }
    fn run(path: String) -> String {
        let states = encoder(path);
        head(states)
    }
}
