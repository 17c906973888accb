//! Indices for other rows than the values have.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Beams = 4;
    pub Vocab = 100;
    pub Best = 2;
}

pub fn pick(x: Tensor![Batch, Vocab], at: Tensor![Beams, Best; Index]) -> Tensor![Batch, Best] {
    x.gather(Vocab, at, Best)
}
