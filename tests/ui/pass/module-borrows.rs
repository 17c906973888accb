//! Arguments by reference.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

pub struct Cache<A>(std::marker::PhantomData<A>);

#[neural_module]
pub struct Net;

#[neural_module]
impl Net {
    pub fn forward(&self, x: Tensor![Batch, Hidden], cache: &mut Cache<Time>, names: &[&str]) -> Tensor![Batch, Hidden] {
        let _ = (cache, names);
        x
    }
}

pub fn f(x: Tensor![Batch, Hidden], cache: &mut Cache<Time>) -> Tensor![Batch, Hidden] {
    Net.call((x, cache, &["a"]))
}
