//! Throughput of the operations that models spend their time in, and of a training step.
//!
//! ```sh
//! cargo bench --manifest-path benches/Cargo.toml            # all
//! cargo bench --manifest-path benches/Cargo.toml -- gemm    # those whose name contains "gemm"
//! ```
//!
//! Throughput is in elements per second: floating-point operations, a multiply-add counted as two,
//! as the graph itself counts them; for the training step, tokens. Every program runs on as many
//! threads as the machine has, or as `MOBILIS_THREADS` says.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use mobilis::graph::Polynomial;
use mobilis::graph::print::costs::costs;
use mobilis::nn::{Embedding, LayerNorm, Linear, PreNormBlock, RmsNorm};
use mobilis::prelude::*;
use mobilis::program::{Arguments, Feed, Results};
use mobilis::train::{AdamW, TrainOptions};
use std::hint::black_box;

axes! {
    pub Rows;
    pub Inner;
    pub Columns;
    pub Batch;
    pub Time;
    pub Vocab = 256;
    pub Heads = 4;
    pub HeadDim = 64;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 4 * Hidden;
}

/// A small GPT: byte embedding, four blocks, a head.
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

/// Values between -1 and 1 that no kernel can take a shortcut for.
fn wave(i: usize) -> f32 {
    (i as f32 * 0.7).sin()
}

/// Measures a function of arrays, counting the floating-point operations of its graph.
fn measure<I: Arguments, O: Results, M: Module>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    module: M,
    f: impl FnOnce(&M, I) -> O,
    arrays: &impl Feed<I>,
    sizes: Sizes,
) {
    let model = Model::init(module, 1).expect("a model without run-time axes in its parameters");
    let program = model.compile(f).expect("a program");
    let flops: Polynomial = costs(program.executable().graph(), &sizes)[0].flops.clone();
    let flops = flops.as_constant().expect("every size is given");
    group.throughput(Throughput::Elements(u64::try_from(flops).expect("a count")));
    group.bench_function(name, |b| b.iter(|| black_box(program.run(arrays).expect("a run"))));
}

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for (m, k, n) in [(128, 128, 128), (512, 512, 512), (1024, 256, 1024), (1, 1024, 1024)] {
        let a = <Array![Rows, Inner]>::from_fn([m, k], |[i, j]| wave(i * k + j)).expect("an array");
        let b = <Array![Inner, Columns]>::from_fn([k, n], |[i, j]| wave(i * n + j)).expect("an array");
        let sizes = Sizes::new().with::<Rows>(m).with::<Inner>(k).with::<Columns>(n);
        type Matrices = (Tensor![Rows, Inner], Tensor![Inner, Columns]);
        let product = |_: &(), (a, b): Matrices| einsum!(a[r i] * b[i c] => [r c]);
        measure(&mut group, &format!("{m}x{k}x{n}"), (), product, &(a, b), sizes);
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let x = <Array![Batch, Time, Hidden]>::from_fn([16, 128, 256], |[b, t, h]| wave((b * 128 + t) * 256 + h));
    let x = x.expect("an array");
    let sizes = || Sizes::new().with::<Batch>(16).with::<Time>(128);
    type Rows3 = Tensor![Batch, Time, Hidden];
    let mut group = c.benchmark_group("rows of 256");
    measure(&mut group, "softmax", (), |_, x: Rows3| x.softmax(Hidden), &x, sizes());
    measure(&mut group, "layer_norm", LayerNorm::<Hidden>::default(), |m, x: Rows3| m.forward(x), &x, sizes());
    measure(&mut group, "rms_norm", RmsNorm::<Hidden>::default(), |m, x: Rows3| m.forward(x), &x, sizes());
    measure(&mut group, "gelu", (), |_, x: Rows3| x.gelu(), &x, sizes());
    group.finish();
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("causal attention, 4 heads of 64");
    for time in [128, 512] {
        let x = <Array![Batch, Time, Heads, HeadDim]>::from_fn([4, time, 4, 64], |[b, t, h, d]| {
            wave(((b * time + t) * 4 + h) * 64 + d)
        });
        let x = x.expect("an array");
        let sizes = Sizes::new().with::<Batch>(4).with::<Time>(time);
        let f = |_: &(), x: Tensor![Batch, Time, Heads, HeadDim]| {
            mobilis::ops::attention::attention(x, x, x).causal().output()
        };
        measure(&mut group, &format!("4 x {time}"), (), f, &x, sizes);
    }
    group.finish();
}

fn training(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step of a GPT, 4 blocks of 256");
    group.sample_size(10);
    let (batch, time) = (8, 128);
    let model = Model::init(Gpt::default(), 1).expect("a model");
    type Pairs = (Tensor![Batch, Time; TokenId], Tensor![Batch, Time; TokenId]);
    let loss = |m: &Gpt, (x, y): Pairs| m.forward(x).cross_entropy(y);
    let mut step = model.train_step(AdamW::new(1e-4), TrainOptions::default().clip_norm(1.0), loss).expect("a step");
    let x = <Array![Batch, Time; TokenId]>::from_fn([batch, time], |[b, t]| ((b * 31 + t * 7) % 256) as i32);
    let x = x.expect("an array");
    group.throughput(Throughput::Elements((batch * time) as u64));
    group.bench_function(format!("{batch} x {time} tokens"), |b| b.iter(|| step.run((&x, &x)).expect("a step")));
    group.finish();
}

criterion_group!(benches, gemm, rows, attention, training);
criterion_main!(benches);
