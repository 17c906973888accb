//! Lengths in samples where lengths in frames are meant.

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
        lengths: fn(String) -> Array![Batch; Lengths<Samples>],
        mask: fn(Array![Batch; Lengths<Frames>]) -> Array![Batch, Frames; PaddingMask],
    }
    fn run(path: String) -> Array![Batch, Frames; PaddingMask] {
        let counts = lengths(path);
        mask(counts)
    }
}
