//! A host type that the next stage does not take.

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
        encoder: fn(String) -> Vec<u32>,
        head: fn(Vec<i32>) -> String,
    }
    fn run(path: String) -> String {
        let states = encoder(path);
        head(states)
    }
}
