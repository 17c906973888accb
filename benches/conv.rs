//! Convolutions of the shapes of speech and image models.

use criterion::{Criterion, criterion_group, criterion_main};
use mobilis::nn::{Conv1d, DepthwiseConv1d, SameConv1d, SameConv2d};
use mobilis::prelude::*;
use mobilis_benches::{Count, measure, wave};

axes! {
    pub Batch;
    pub Frames;
    pub Height;
    pub Width;
    pub Channels = 256;
    pub Planes = 64;
}

fn signals(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv1d, 256 channels of 500");
    let x = <Array![Batch, Channels, Frames]>::from_fn([1, 256, 500], |[_, c, t]| wave(c * 500 + t));
    let x = x.expect("an array");
    type Signal = Tensor![Batch, Channels, Frames];
    let depthwise = DepthwiseConv1d::<Channels, 63, 1, 31>::default();
    measure(&mut group, "depthwise, 63 taps", depthwise, |m, x: Signal| m.forward(x), &x, Count::Flops);
    let pointwise = Conv1d::<Channels, Channels, 1>::default();
    measure(&mut group, "pointwise", pointwise, |m, x: Signal| m.forward(x), &x, Count::Flops);
    let dense = SameConv1d::<Channels, Channels, 5>::default();
    measure(&mut group, "5 taps", dense, |m, x: Signal| m.forward(x), &x, Count::Flops);
    group.finish();
}

fn pictures(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d, 64 planes of 56 x 56");
    let place = |[_, p, y, x]: [usize; 4]| wave((p * 56 + y) * 56 + x);
    let x = <Array![Batch, Planes, Height, Width]>::from_fn([1, 64, 56, 56], place).expect("an array");
    let layer = SameConv2d::<Planes, Planes, 3>::default();
    let f = |m: &SameConv2d<Planes, Planes, 3>, x: Tensor![Batch, Planes, Height, Width]| m.forward(x);
    measure(&mut group, "3 x 3", layer, f, &x, Count::Flops);
    group.finish();
}

criterion_group!(benches, signals, pictures);
criterion_main!(benches);
