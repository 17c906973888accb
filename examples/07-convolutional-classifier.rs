//! A convolutional classifier: the length of every feature map is a type, from the image to the
//! last linear layer.
//!
//! `cargo run --release --example 07-convolutional-classifier`

use mobilis::nn::{Conv2d, Flatten, Linear, MaxPool2d, Relu};
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};

axes! {
    pub Batch;
    /// One channel: brightness.
    pub Grey = 1;
    pub Height = 16;
    pub Width = 16;
    pub Edges = 8;
    pub Parts = 16;
    /// Strides and pooling leave an eighth of each side; any other number here does not build.
    pub Features = Parts * (Height / 8) * (Width / 8);
    pub Shapes = 4;
}

/// Tells a disc, a ring, a square and a cross apart. A tuple of layers is a layer: each gives
/// what the next takes, or it does not compile.
pub type Classifier = (
    Conv2d<Grey, Edges, 3, 2, 1>,
    Relu,
    Conv2d<Edges, Parts, 3, 2, 1>,
    Relu,
    MaxPool2d<2>,
    Flatten<Features>,
    Linear<Features, Shapes>,
);

type Images = Array![Batch, Grey, Height, Width];

/// Shapes of random size and place under noise.
fn batch(count: usize, seed: &mut u64) -> Result<(Images, Array![Batch; Labels]), ArrayError> {
    let mut random = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1u64 << 24) as f32
    };
    let labels: Vec<i32> = (0..count).map(|i| (i % 4) as i32).collect();
    let drawn: Vec<_> = (0..count).map(|_| [6.0 * random(), 6.0 * random(), 1.5 * random()]).collect();
    let images = Images::from_fn([count, 1, 16, 16], |[i, _, row, column]| {
        let [x, y, r] = [drawn[i][0] + 5.0, drawn[i][1] + 5.0, drawn[i][2] + 3.0];
        let (dx, dy) = ((column as f32 - x).abs(), (row as f32 - y).abs());
        let distance = dx.hypot(dy);
        let inside = match labels[i] {
            0 => distance < r,
            1 => (r - 1.5..r).contains(&distance),
            2 => dx.max(dy) < r * 0.9,
            _ => dx.min(dy) < 1.0 && dx.max(dy) < r,
        };
        inside as u8 as f32 + 0.4 * (random() - 0.5)
    })?;
    Ok((images, Array::from_vec(labels)?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Classifier::default(), 1)?;
    type Image = Tensor![Batch, Grey, Height, Width];
    type Args = (Image, Tensor![Batch; Labels]);
    let mut step = model.train_step(AdamW::new(0.01), TrainOptions::default(), |m: &Classifier, (x, y): Args| {
        m.call(x).cross_entropy(y)
    })?;
    let mut seed = 7;
    for i in 1..=400 {
        let (images, labels) = batch(64, &mut seed)?;
        let report = step.run((&images, &labels))?;
        if i % 100 == 0 {
            println!("step {i}: loss {:.4}", report.loss);
        }
    }
    let (images, labels) = batch(1000, &mut seed)?;
    let guesses = model.compile(|m, x: Image| m.call(x).argmax(Shapes))?.run(&images)?;
    let right = guesses.iter().zip(labels.iter()).filter(|(a, b)| a == b).count();
    println!("{:.1} % of 1000 new images are told right", right as f64 / 10.0);
    Ok(())
}
