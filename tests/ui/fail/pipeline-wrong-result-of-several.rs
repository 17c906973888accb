//! The states of an encoder for a search over its scores.

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
        search: fn(scores: Array![Frames, Vocab; LogProbs]) -> String,
        embed: fn(Array![Frames, Hidden; Encoded]) -> f32,
    }
    fn run(path: String) -> (text: String, loudness: f32) {
        let encoded = encoder(decode(path));
        let text = search(scores: encoded.states);
        (text, embed(encoded.states))
    }
}
