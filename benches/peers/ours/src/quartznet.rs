//! `quartznet`: the encoder of QuartzNet 15×5 (Kriman et al. 2019) on ten seconds, 1,000 frames of
//! 64 bands. Every convolution is followed by a batch norm with its running statistics.

use crate::run::{Fixed, fill};
use mobilis::nn::{BatchNorm, Conv1d, DepthwiseConv1d};
use mobilis::prelude::*;
use protocol::{Case, Refusal, uniform};

axes! {
    pub Batch;
    pub Frames;
    pub Mels = 64;
    pub Small = 256;
    pub Large = 512;
    pub Features = 1024;
}

/// The frames behind the first layer.
type Half = Conv<Frames, 33, 2, 16, 1>;

/// A depthwise and a pointwise convolution and a batch norm.
#[neural_module]
struct Sub<I: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64> {
    #[default(DepthwiseConv1d::default().no_bias())]
    depthwise: DepthwiseConv1d<I, K, S, P, D>,
    #[default(Conv1d::default().no_bias())]
    pointwise: Conv1d<I, O, 1>,
    norm: BatchNorm<O>,
}

#[neural_module]
impl<I: Axis, O: Axis, const K: u64, const S: u64, const P: u64, const D: u64> Sub<I, O, K, S, P, D> {
    fn forward<L: Axis>(&self, x: Tensor<(Batch, I, L)>) -> Tensor<(Batch, O, Half)> {
        self.norm.forward(self.pointwise.forward(self.depthwise.forward(x)).relabel::<(Batch, O, Half)>())
    }
}

/// Five of them around a residual.
#[neural_module]
struct Block<I: Axis, O: Axis, const K: u64, const P: u64> {
    first: Sub<I, O, K, 1, P, 1>,
    #[default(std::array::from_fn(|_| Sub::default()))]
    rest: [Sub<O, O, K, 1, P, 1>; 4],
    #[default(Conv1d::default().no_bias())]
    residual: Conv1d<I, O, 1>,
    residual_norm: BatchNorm<O>,
}

#[neural_module]
impl<I: Axis, O: Axis, const K: u64, const P: u64> Block<I, O, K, P> {
    fn forward(&self, x: Tensor<(Batch, I, Half)>) -> Tensor<(Batch, O, Half)> {
        let y = self.rest.iter().fold(self.first.forward(x), |y, sub| sub.forward(y.relu()));
        let side = self.residual.forward(x).relabel::<(Batch, O, Half)>();
        (y + self.residual_norm.forward(side)).relu()
    }
}

#[neural_module]
struct Encoder {
    first: Sub<Mels, Small, 33, 2, 16, 1>,
    #[default(std::array::from_fn(|_| Block::default()))]
    a: [Block<Small, Small, 33, 16>; 3],
    #[default(std::array::from_fn(|_| Block::default()))]
    b: [Block<Small, Small, 39, 19>; 3],
    c_first: Block<Small, Large, 51, 25>,
    #[default(std::array::from_fn(|_| Block::default()))]
    c: [Block<Large, Large, 51, 25>; 2],
    #[default(std::array::from_fn(|_| Block::default()))]
    d: [Block<Large, Large, 63, 31>; 3],
    #[default(std::array::from_fn(|_| Block::default()))]
    e: [Block<Large, Large, 75, 37>; 3],
    wide: Sub<Large, Large, 87, 1, 86, 2>,
    #[default(Conv1d::default().no_bias())]
    out: Conv1d<Large, Features, 1>,
    out_norm: BatchNorm<Features>,
}

#[neural_module]
impl Encoder {
    fn forward(&self, x: Tensor![Batch, Mels, Frames]) -> Tensor<(Batch, Features, Half)> {
        let x = self.first.forward(x).relu();
        let x = self.a.iter().fold(x, |x, block| block.forward(x));
        let x = self.b.iter().fold(x, |x, block| block.forward(x));
        let x = self.c_first.forward(x);
        let x = self.c.iter().fold(x, |x, block| block.forward(x));
        let x = self.d.iter().fold(x, |x, block| block.forward(x));
        let x = self.e.iter().fold(x, |x, block| block.forward(x));
        let x = self.wide.forward(x).relu();
        self.out_norm.forward(self.out.forward(x).relabel::<(Batch, Features, Half)>()).relu()
    }
}

pub fn encoder() -> Result<Box<dyn Case>, Refusal> {
    let model = Model::init(Encoder::default(), 1)?;
    fill(&model)?;
    let program = model.compile(|m, x: Tensor![Batch, Mels, Frames]| m.forward(x))?;
    let arrays = <Array![Batch, Mels, Frames]>::new([1, 64, 1000], uniform("features", 64 * 1000, 1.0))?;
    Ok(Box::new(Fixed { program, arrays }))
}
