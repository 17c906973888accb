//! A module is a struct: its fields are parameters and other modules, its methods compute.
//!
//! `cargo run --example 02-module`

use mobilis::prelude::*;

axes! {
    /// Images in a batch: known when the program runs.
    pub Batch;
    /// 28 * 28 grey values.
    pub Pixels = 28 * 28;
    pub Hidden = 128;
    pub Digits = 10;
}

/// A dense layer, generic over its two axes: one definition for every pair of widths.
#[neural_module]
pub struct Dense<I: Axis, O: Axis> {
    // Weights are laid out as in PyTorch, so public checkpoints load as they are.
    weight: Param![O, I],
    bias: Param![O],
}

#[neural_module]
impl<I: Axis, O: Axis> Dense<I, O> {
    /// Lower-case names stand for axes; what both sides of `*` share and `=>` lacks is summed.
    pub fn forward(&self, x: Tensor![Batch, I]) -> Tensor![Batch, O] {
        einsum!(x[b i] * self.weight.get()[o i] => [b o]) + self.bias.get()
    }
}

#[neural_module]
pub struct Net {
    first: Dense<Pixels, Hidden>,
    last: Dense<Hidden, Digits>,
}

#[neural_module]
impl Net {
    pub fn forward(&self, image: Tensor![Batch, Pixels]) -> Tensor![Batch, Digits] {
        // Swap `first` and `last` here, and the compiler says which axis is not which.
        self.last.forward(self.first.forward(image))
    }

    /// A module may have any number of entry points: here the loss that training makes small.
    pub fn loss(&self, image: Tensor![Batch, Pixels], digit: Tensor![Batch; Labels]) -> Tensor![] {
        self.forward(image).cross_entropy(digit)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A model is a module with values: new ones from a seed here, or a checkpoint's.
    let model = Model::init(Net::default(), 0)?;
    println!("{}", model.summary());

    // Functions of a model are compiled, then run on arrays. Wrong axes do not compile, wrong
    // sizes are refused when the program is run.
    let classify = model.compile(|net, image| net.forward(image).softmax(Digits))?;
    let image = <Array![Batch, Pixels]>::from_fn([2, 784], |[b, p]| ((b * 31 + p) as f32).sin())?;
    let probabilities = classify.run(&image)?;
    for row in probabilities.data().chunks(10) {
        println!("an untrained opinion: {row:.2?}, which sums to {:.3}", row.iter().sum::<f32>());
    }
    Ok(())
}
