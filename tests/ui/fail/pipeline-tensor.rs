//! A symbol where a value is meant.

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
        decode: fn(String) -> Tensor![Samples],
    }
    fn run(path: String) -> Array![Samples] {
        decode(path)
    }
}
