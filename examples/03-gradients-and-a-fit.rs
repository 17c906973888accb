//! Derivatives are values like others; a training step takes them by every parameter, and one
//! program holds it all.
//!
//! `cargo run --example 03-gradients-and-a-fit`

use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};

axes! {
    pub Points;
    pub Hidden = 32;
}

/// A curve with a hundred adjustable numbers: a sum of 32 smooth steps.
#[neural_module]
pub struct Curve {
    #[init(normal(1.0))]
    slopes: Param![Hidden],
    #[init(normal(1.0))]
    offsets: Param![Hidden],
    heights: Param![Hidden],
}

#[neural_module]
impl Curve {
    pub fn forward(&self, x: Tensor![Points]) -> Tensor![Points] {
        let steps = einsum!(x[p] * self.slopes.get()[h] => [p h]) + self.offsets.get();
        einsum!(steps.tanh() [p h] * self.heights.get()[h] => [p])
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let x = <Array![Points]>::from_vec((0..64).map(|i| i as f32 / 10.0 - 3.2).collect())?;

    // A derivative: each y depends on its own x alone, so the gradient of their sum is dy/dx.
    let slope = Model::init((), 0)?.compile(|_, x: Tensor![Points]| x.sin().sum_all().gradient(x))?;
    let error = slope.run(&x)?.iter().zip(x.iter()).map(|(d, x)| (d - x.cos()).abs()).fold(0.0, f32::max);
    println!("d sin(x) / dx differs from cos(x) by {error:.1e} at most");

    // A fit: forward, backward and the optimizer's update are compiled together.
    let model = Model::init(Curve::default(), 1)?;
    type Pairs = (Tensor![Points], Tensor![Points]);
    let mut step = model
        .train_step(AdamW::new(0.02), TrainOptions::default(), |m: &Curve, (x, y): Pairs| m.forward(x).mse_loss(y))?;
    let y = x.map(f32::sin);
    for i in 0..=400 {
        let report = step.run((&x, &y))?;
        if i % 100 == 0 {
            println!("step {i:3}: mean squared error {:.6}", report.loss);
        }
    }

    // The model's programs see what training changed.
    let curve = model.compile(|m, x| m.forward(x))?.run(&x)?;
    let error = curve.iter().zip(y.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("the fitted curve is within {error:.3} of sin(x)");
    Ok(())
}
