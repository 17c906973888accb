//! Real elements enter, the plain base comes out.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub fn f(x: Tensor![Batch, Hidden; MelSpectrogram], w: Tensor![Ffn, Hidden; Probs]) -> Tensor![Batch, Ffn] {
    einsum!(x[b i] * w[o i] => [b o])
}
