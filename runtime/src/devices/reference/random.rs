//! Random values on the reference device: the generator is the kernels' own, as all devices must
//! draw the same numbers; it is tested against its published answers there.

use super::{Eval, RefArray};
use crate::ops::random::{Distribution, Random};
use mobilis_kernels::philox;

pub fn random(op: &Random, cx: &Eval) -> RefArray {
    let key = &cx.inputs[0].data;
    let stream = philox::Stream { seed: key[0] as i64 as u32, step: key[1] as i64 as u32, stream: op.stream };
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let n = out.data.len();
    let put = |i: usize, v: f64| out.data[i] = v;
    match op.distribution {
        Distribution::Uniform => stream.fill(0, n, philox::uniform, put),
        Distribution::Normal => stream.fill(0, n, philox::normal, put),
        Distribution::Gumbel => stream.fill(0, n, philox::gumbel, put),
        Distribution::Bernoulli(p) => stream.fill(0, n, |w| philox::bernoulli(w, p), put),
    }
    out
}
