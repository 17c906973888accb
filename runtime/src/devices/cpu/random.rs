//! Random values on the CPU.

use super::lower::Lower;
use crate::ops::random::{Distribution, Random};
use mobilis_kernels::cpu::random::{bernoulli, fill, uniform};
use mobilis_kernels::philox;

pub fn random(op: &Random, cx: &mut Lower) {
    let (key, y) = (cx.input(0), cx.output(0));
    let (stream, distribution) = (op.stream, op.distribution);
    cx.task(move |m| {
        let key = m.i32(key);
        let stream = philox::Stream { seed: key[0] as u32, step: key[1] as u32, stream };
        let real = |v: f64| v as f32;
        match distribution {
            Distribution::Uniform => uniform(m.pool(), stream, &mut m.f32_mut(y)),
            Distribution::Normal => fill(m.pool(), stream, &mut m.f32_mut(y), philox::normal, real),
            Distribution::Gumbel => fill(m.pool(), stream, &mut m.f32_mut(y), philox::gumbel, real),
            Distribution::Bernoulli(p) => bernoulli(m.pool(), stream, p, &mut m.u8_mut(y)),
        }
    });
}
