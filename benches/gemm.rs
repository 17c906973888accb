//! Matrix products of two arguments, and of an argument with weights, which are packed once.

use criterion::{Criterion, criterion_group, criterion_main};
use mobilis::nn::Linear;
use mobilis::prelude::*;
use mobilis::program::WeightFormat;
use mobilis_benches::{Count, measure, measure_program, wave};

axes! {
    pub Rows;
    pub Inner;
    pub Columns;
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for (m, k, n) in [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 256, 1024), (1, 1024, 1024)] {
        let a = <Array![Rows, Inner]>::from_fn([m, k], |[i, j]| wave(i * k + j)).expect("an array");
        let b = <Array![Inner, Columns]>::from_fn([k, n], |[i, j]| wave(i * n + j)).expect("an array");
        type Matrices = (Tensor![Rows, Inner], Tensor![Inner, Columns]);
        let product = |_: &(), (a, b): Matrices| einsum!(a[r i] * b[i c] => [r c]);
        measure(&mut group, &format!("{m}x{k}x{n}"), (), product, &(&a, &b), Count::Flops);
    }
    group.finish();
}

fn weights(c: &mut Criterion) {
    let mut group = c.benchmark_group("weights of 4096 x 4096");
    let sizes = Sizes::new().with::<Inner>(4096).with::<Columns>(4096);
    let layer = <Linear<Inner, Columns>>::new().no_bias();
    let model = Model::init_with(layer, 1, sizes).expect("a model");
    for (format, rows) in [
        (WeightFormat::F32, 1),
        (WeightFormat::Bf16, 1),
        (WeightFormat::Q8_0, 1),
        (WeightFormat::Q4_0, 1),
        (WeightFormat::F32, 8),
        (WeightFormat::F32, 64),
        (WeightFormat::Int8, 64),
    ] {
        let x = <Array![Rows, Inner]>::from_fn([rows, 4096], |[i, j]| wave(i * 4096 + j)).expect("an array");
        let program = model.compile(|m, x: Tensor![Rows, Inner]| m.forward(x)).expect("a program");
        let program = program.with_weights(format).expect("no exceptions");
        measure_program(&mut group, &format!("{rows} rows, {format}"), &program, &x, Count::Flops);
    }
    group.finish();
}

criterion_group!(benches, products, weights);
criterion_main!(benches);
