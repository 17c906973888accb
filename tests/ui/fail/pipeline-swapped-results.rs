//! Two results in the wrong order.

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
        decode: fn(String) -> Array![Samples; AudioSignal<16000>],
        encoder: fn(Array![Samples; AudioSignal<16000>]) -> (states: Array![Frames, Hidden; Encoded], scores: Array![Frames, Vocab; LogProbs]),
    }
    fn run(path: String) -> (scores: Array![Frames, Vocab; LogProbs], states: Array![Frames, Hidden; Encoded]) {
        encoder(decode(path))
    }
}
