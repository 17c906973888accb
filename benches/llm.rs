//! A language model in the shape of Llama, 4 layers of 512: prompts, and decoding over a cache.

use criterion::{Criterion, criterion_group, criterion_main};
use mobilis::nn::{BoundedKvCache, Embedding, Linear, RmsNorm, Rotary, SelfAttention, SwiGlu};
use mobilis::prelude::*;
use mobilis::program::WeightFormat;
use mobilis_benches::{Count, measure_program};

axes! {
    pub Batch;
    pub Time;
    pub Cached = 512;
    pub Vocab = 8000;
    pub Heads = 8;
    pub HeadDim = 64;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 1536;
}

type Tokens = Tensor![Batch, Time; TokenId];
type Cache = BoundedKvCache<Batch, Cached, Heads, HeadDim>;

#[neural_module]
struct Block {
    norm1: RmsNorm<Hidden>,
    #[default(SelfAttention::default().causal().rope(Rotary::default()))]
    attn: SelfAttention<Hidden, Heads, HeadDim>,
    norm2: RmsNorm<Hidden>,
    mlp: SwiGlu<Hidden, Ffn>,
}

#[neural_module]
struct Llama {
    embed: Embedding<Vocab, Hidden>,
    #[default(std::array::from_fn(|_| Block::default()))]
    blocks: [Block; 4],
    norm: RmsNorm<Hidden>,
    #[default(Linear::default().no_bias())]
    head: Linear<Hidden, Vocab>,
}

impl Llama {
    /// New tokens after those in the caches.
    fn step(&self, tokens: Tokens, caches: &[Cache], at: Tensor![; Index]) -> Tensor![Batch, 1, Vocab] {
        let mut x = self.embed.forward(tokens);
        for (block, cache) in self.blocks.iter().zip(caches) {
            x = x + block.attn.step_in_place(block.norm1.forward(x), cache, at);
            x = x + block.mlp.forward(block.norm2.forward(x));
        }
        self.head.forward(self.norm.forward(x.flip(Time).slice(Time, Const::<1>, 0)))
    }
}

fn llama(c: &mut Criterion) {
    let model = Model::init(Llama::default(), 1).expect("a model");
    let mut group = c.benchmark_group("Llama, 4 layers of 512");
    group.sample_size(20);
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_0] {
        let caches: [Cache; 4] = Default::default();
        let step = |m: &Llama, (x, at): (Tokens, Tensor![; Index])| m.step(x, &caches, at);
        let program = model.compile(step).and_then(|p| p.with_weights(format)).expect("a program");
        for (name, count, at) in [("prompt of 128", 128, 0), ("decode after 128", 1, 128)] {
            let place = |[_, t]: [usize; 2]| (t * 37 % 8000) as i32;
            let x = <Array![Batch, Time; TokenId]>::from_fn([1, count], place).expect("an array");
            let arrays = (&x, &<Array![; Index]>::scalar(at));
            measure_program(&mut group, &format!("{name}, {format}"), &program, &arrays, Count::Tokens(count));
        }
    }
    group.finish();
}

criterion_group!(benches, llama);
criterion_main!(benches);
