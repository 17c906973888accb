//! A pipeline of any model of a family, its stages programs.

use mobilis::pipeline::Padded;
use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Frames;
    pub trait ModelAxes { Hidden, Vocab }
    pub struct Any: ModelAxes;
}

pipeline! {
    pub struct Listen<A: ModelAxes> {
        encoder: fn(Array![Frames, A::Hidden; Channels]) -> Array![Frames, A::Hidden; Encoded],
        head: fn(Array![Frames, A::Hidden; Encoded]) -> Array![Frames, A::Vocab; LogProbs],
    }
    fn run(x: Array![Frames, A::Hidden; Channels]) -> Array![Frames, A::Vocab; LogProbs] {
        let states = encoder(x);
        head(states)
    }
}

pub fn f<A: ModelAxes>(
    encoder: Program<Padded<(Batch, Frames, A::Hidden), Channels>, Padded<(Batch, Frames, A::Hidden), Encoded>>,
    head: Program<Tensor![Frames, A::Hidden], Tensor![Frames, A::Vocab; LogProbs]>,
) -> Listen<A> {
    Listen::new(encoder.per_item(), head)
}

pub fn g(listen: &mut Listen<Any>, head: Program<Tensor![Frames, <Any as ModelAxes>::Hidden], Tensor![Frames, <Any as ModelAxes>::Vocab; LogProbs]>) {
    listen.set_head(head);
}
