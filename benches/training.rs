//! Training steps: forward, backward, clipping, AdamW.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mobilis::nn::{Embedding, LayerNorm, Linear, PreNormBlock};
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};
use mobilis_benches::report;
use std::time::Instant;

axes! {
    pub Batch;
    pub Time;
    pub Vocab = 1000;
    pub Heads = 4;
    pub HeadDim = 64;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 4 * Hidden;
}

/// A small GPT.
#[neural_module]
struct Gpt {
    embed: Embedding<Vocab, Hidden>,
    #[default(std::array::from_fn(|_| PreNormBlock::default().causal()))]
    blocks: [PreNormBlock<Hidden, Heads, HeadDim, Ffn>; 4],
    norm: LayerNorm<Hidden>,
    head: Linear<Hidden, Vocab>,
}

#[neural_module]
impl Gpt {
    pub fn forward(&self, tokens: Tensor![Batch, Time; TokenId]) -> Tensor![Batch, Time, Vocab] {
        let x = self.blocks.iter().fold(self.embed.forward(tokens), |x, block| block.forward(x));
        self.head.forward(self.norm.forward(x))
    }
}

fn training(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step of a GPT, 4 blocks of 256");
    group.sample_size(10);
    let model = Model::init(Gpt::default(), 1).expect("a model");
    type Pairs = (Tensor![Batch, Time; TokenId], Tensor![Batch, Time; TokenId]);
    for (name, options) in
        [("plain", TrainOptions::default()), ("gradients clipped", TrainOptions::default().clip_norm(1.0))]
    {
        let loss = |m: &Gpt, (x, y): Pairs| m.forward(x).cross_entropy(y);
        let mut step = model.train_step(AdamW::new(1e-4), options, loss).expect("a step");
        for (batch, time) in [(8, 128), (8, 256)] {
            let place = |[b, t]: [usize; 2]| ((b * 31 + t * 7) % 1000) as i32;
            let x = <Array![Batch, Time; TokenId]>::from_fn([batch, time], place).expect("an array");
            let profile = step.profile((&x, &x), 1).expect("a step");
            group.throughput(Throughput::Elements((batch * time) as u64));
            let mut best = f64::INFINITY;
            group.bench_function(format!("{name}, {batch} x {time} tokens"), |b| {
                b.iter(|| {
                    let start = Instant::now();
                    step.run((&x, &x)).expect("a step");
                    best = best.min(start.elapsed().as_secs_f64());
                });
            });
            report(&profile, best);
        }
    }
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
