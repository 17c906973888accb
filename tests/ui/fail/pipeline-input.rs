//! The input of the pipeline is not what its first stage takes.

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
        decode: fn(std::path::PathBuf) -> Array![Samples],
    }
    fn run(path: String) -> Array![Samples] {
        decode(path)
    }
}
