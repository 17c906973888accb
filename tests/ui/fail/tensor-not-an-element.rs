//! A struct that is no element.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Tokens;

pub fn f(ids: Tensor![Batch; Tokens]) -> Tensor![Batch; Index] {
    ids.plain()
}
