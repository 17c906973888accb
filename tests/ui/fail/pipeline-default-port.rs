//! Another type for a port that has a default.

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
        beams: fn(String) -> f32,
        search: fn(String, beams: usize = 4) -> String,
    }
    fn run(path: String) -> String {
        let n = beams(path);
        search(path, n)
    }
}
