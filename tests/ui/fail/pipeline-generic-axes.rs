//! Two axes of one bundle are mixed up.

use mobilis::prelude::*;

axes! {
    Frames;
    pub trait ModelAxes { Hidden, Vocab }
}

pipeline! {
    pub struct Listen<A: ModelAxes> {
        encoder: fn(String) -> Array![Frames, A::Hidden; Encoded],
        head: fn(Array![Frames, A::Vocab; Encoded]) -> String,
    }
    fn run(path: String) -> String {
        head(encoder(path))
    }
}
