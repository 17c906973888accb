//! Operations on rows: 2,048 of 256 values, which fit caches, and 16,384 of 1,024, which do not.

use criterion::{Criterion, criterion_group, criterion_main};
use mobilis::prelude::*;
use mobilis_benches::{Count, measure, wave};

axes! {
    pub Rows;
    pub Columns;
}

type Matrix = Tensor![Rows, Columns];

fn rows(c: &mut Criterion) {
    for [m, n] in [[2048, 256], [16384, 1024]] {
        let mut group = c.benchmark_group(format!("{m} rows of {n}"));
        group.sample_size(30);
        let x = <Array![Rows, Columns]>::from_fn([m, n], |[i, j]| wave(i * n + j)).expect("an array");
        let y = <Array![Rows; Index]>::from_fn([m], |[i]| (i * 7 % n) as i32).expect("an array");
        measure(&mut group, "softmax", (), |_, x: Matrix| x.softmax(Columns), &x, Count::Flops);
        let norm = |_: &(), x: Matrix| x.layer_norm::<Columns>(None, None, 1e-5);
        measure(&mut group, "layer_norm", (), norm, &x, Count::Flops);
        let norm = |_: &(), x: Matrix| x.rms_norm::<Columns>(None, 1e-5);
        measure(&mut group, "rms_norm", (), norm, &x, Count::Flops);
        measure(&mut group, "gelu", (), |_, x: Matrix| x.gelu(), &x, Count::Flops);
        measure(&mut group, "sum", (), |_, x: Matrix| x.sum(Columns), &x, Count::Flops);
        type Labelled = (Matrix, Tensor![Rows; Index]);
        let loss = |_: &(), (x, y): Labelled| x.cross_entropy(y);
        measure(&mut group, "cross_entropy", (), loss, &(&x, &y), Count::Flops);
        group.finish();
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
