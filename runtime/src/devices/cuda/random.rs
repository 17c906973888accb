//! Random values on GPUs.

use super::lower::{Lower, Lowering};
use crate::ops::random::{self, Random};
use mobilis_cuda::random::{Distribution, random};

pub fn lower(op: &Random, cx: &mut Lower) -> Lowering {
    let distribution = match op.distribution {
        random::Distribution::Uniform => Distribution::Uniform,
        random::Distribution::Normal => Distribution::Normal,
        random::Distribution::Gumbel => Distribution::Gumbel,
        random::Distribution::Bernoulli(p) => Distribution::Bernoulli(p),
    };
    let (key, y, len) = (cx.input(0), cx.output(0), cx.output_sizes(0).iter().product());
    cx.launch(random(distribution, key, y, len, op.stream)?);
    Ok(())
}
