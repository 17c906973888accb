//! A port takes its element, a refinement, or the plain base.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

#[neural_module]
pub struct Encoder {
    weight: Param![Hidden],
}

#[neural_module]
impl Encoder {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden; Spectrogram], lengths: Tensor![Batch; Lengths<Time>]) -> Tensor![Batch, Time, Hidden; Encoded] {
        let _: Tensor![Batch; Lengths<Time>] = lengths;
        (x.plain() * self.weight.get()).assume()
    }
}

pub fn f(encoder: &Encoder, mel: Tensor![Batch, Time, Hidden; MelSpectrogram], plain: Tensor![Batch, Time, Hidden], n: Tensor![Batch; Lengths<Time>], m: Tensor![Batch; Index]) {
    let _ = encoder.forward(mel, n);
    let _ = encoder.forward(plain, m);
    let _: Tensor![Batch, Time, Hidden; Encoded] = encoder.call((mel, m));
}
