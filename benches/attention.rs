//! Causal attention: whole sequences, and one query over a long cache.

use criterion::{Criterion, criterion_group, criterion_main};
use mobilis::ops::attention::attention;
use mobilis::prelude::*;
use mobilis_benches::{Count, measure, wave};

axes! {
    pub Batch;
    pub Time;
    pub Source;
    pub Heads = 4;
    pub HeadDim = 64;
}

fn sequences(c: &mut Criterion) {
    let mut group = c.benchmark_group("causal attention, 4 heads of 64");
    for (batch, time) in [(4, 128), (8, 256), (4, 512)] {
        let place = |[b, t, h, d]: [usize; 4]| wave(((b * time + t) * 4 + h) * 64 + d);
        let x = <Array![Batch, Time, Heads, HeadDim]>::from_fn([batch, time, 4, 64], place).expect("an array");
        let f = |_: &(), x: Tensor![Batch, Time, Heads, HeadDim]| attention(x, x, x).causal().output();
        measure(&mut group, &format!("{batch} x {time}"), (), f, &x, Count::Flops);
    }
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("one query, 4 heads of 64");
    for source in [1024, 8192] {
        let place = |[_, t, h, d]: [usize; 4]| wave((t * 4 + h) * 64 + d);
        let q = <Array![Batch, Time, Heads, HeadDim]>::from_fn([1, 1, 4, 64], place).expect("an array");
        let k = <Array![Batch, Source, Heads, HeadDim]>::from_fn([1, source, 4, 64], place).expect("an array");
        type Both = (Tensor![Batch, Time, Heads, HeadDim], Tensor![Batch, Source, Heads, HeadDim]);
        let f = |_: &(), (q, k): Both| attention(q, k, k).output();
        measure(&mut group, &format!("over {source}"), (), f, &(&q, &k), Count::Flops);
    }
    group.finish();
}

criterion_group!(benches, sequences, decoding);
criterion_main!(benches);
